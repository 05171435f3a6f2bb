import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import rnnx
from networks import NETWORKS
from rnnx.quantization import quality, tuning


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The artifact of a network of `networks.NETWORKS` by its name, exported once."""
    folder = tmp_path_factory.mktemp("exported")

    def artifact(name: str, *, streaming: bool) -> Path:
        path = folder / f"{name}-{'streaming' if streaming else 'offline'}.onnx"
        if not path.exists():
            model, args = NETWORKS[name]()
            rnnx.export(model, args, path, streaming=streaming)
        return path

    return artifact


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The empty current folder; the modules that a test imports from it are forgotten after."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def short_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are timed once, for tests that ask what is told of times, not how long they are."""
    monkeypatch.setattr(quality, "_SECONDS", 0.0)
    monkeypatch.setattr(tuning, "_SECONDS", 0.0)

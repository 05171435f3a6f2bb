from collections.abc import Callable
from pathlib import Path

import pytest

import rnnx
from networks import NETWORKS


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

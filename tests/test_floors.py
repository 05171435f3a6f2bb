"""What each floor may load, asked of a fresh interpreter, and the public names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import rnnx
import rnnx_runtime
from artifacts import gru_artifact
from rnnx.cli import _COMMANDS

HEAVY = {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "numpy", "matplotlib"}


def loaded_by(code: str, *args: str, exits: int = 0) -> set[str]:
    """Top-level packages in a fresh interpreter after `code`, which ends in the code `exits`."""
    script = f"""
import sys
sys.argv = ["rnnx", *sys.argv[1:]]
try:
    {code}
finally:
    print("LOADED", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = run_python("-c", script, *args)
    assert done.returncode == exits, done.stderr
    return set(done.stdout.partition("LOADED ")[2].split())


def run_python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True)


def test_the_runtime_loads_numpy_and_onnxruntime_only() -> None:
    allowed = loaded_by("import numpy, onnxruntime") | set(sys.stdlib_module_names)
    assert loaded_by("import rnnx_runtime") - allowed == {"rnnx_runtime"}


def test_streaming_loads_nothing_more(tmp_path: Path) -> None:
    gru_artifact(tmp_path / "gru.onnx")
    allowed = loaded_by("import numpy, onnxruntime") | set(sys.stdlib_module_names)
    code = "import rnnx_runtime; rnnx_runtime.Stream(sys.argv[1]).feed([[[1, 2, 3]]])"
    assert loaded_by(code, str(tmp_path / "gru.onnx")) - allowed == {"rnnx_runtime"}


@pytest.mark.parametrize(
    "code",
    [
        "import rnnx",
        "import rnnx; dir(rnnx); rnnx.__version__",
        "from rnnx.cli import main; main(['--help'])",
        "from rnnx.cli import main; main(['--version'])",
    ],
)
def test_looking_at_rnnx_loads_nothing_heavy(code: str) -> None:
    assert not loaded_by(code) & HEAVY


@pytest.mark.parametrize("command", _COMMANDS)
def test_each_command_has_help_and_json_and_loads_nothing_heavy_for_it(command: str) -> None:
    code = f"from rnnx.cli import main; main([{command!r}, '--help'])"
    done = run_python("-c", code)
    assert f"Usage: rnnx {command}" in done.stdout
    assert "--json" in done.stdout
    assert not loaded_by(code) & HEAVY


@pytest.mark.parametrize("command", ["stream", "inspect", "bench"])
def test_what_runs_on_the_device_loads_neither_torch_nor_onnx(command: str) -> None:
    options: Sequence[str] = ["--input", "-"] if command == "stream" else []
    arguments = [command, "none.onnx", *options]
    loaded = loaded_by(f"from rnnx.cli import main; main({arguments!r})", exits=2)
    assert "onnxruntime" in loaded
    assert not loaded & (HEAVY - {"onnxruntime", "numpy"})


@pytest.mark.parametrize("package", [rnnx, rnnx_runtime])
def test_public_names_are_sorted_and_importable(package: object) -> None:
    names = package.__all__  # type: ignore[attr-defined]
    assert names == sorted(names)
    assert len(set(names)) == len(names)
    assert all(hasattr(package, name) for name in names)
    assert set(names) <= set(dir(package))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rnnx.nonsense  # noqa: B018


def test_every_error_is_an_rnnx_error_with_room_for_a_hint() -> None:
    errors = [getattr(rnnx, name) for name in rnnx.__all__ if name.endswith("Error")]
    for error in errors:
        assert issubclass(error, rnnx.RnnxError)
        assert error("what", hint="do").hint == "do"

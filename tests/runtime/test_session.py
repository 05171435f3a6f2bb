from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from artifacts import gru_artifact
from rnnx_runtime import ArtifactError, Model, load_contract


@pytest.mark.parametrize("name", [b"rnnx.contract", b"s000_out"])
def test_names_that_are_not_utf8_are_refused(tmp_path: Path, name: bytes) -> None:
    path = damaged(tmp_path, name, b"\xff" + name[1:])
    for opened in (Model, load_contract):
        with pytest.raises(ArtifactError, match="not UTF-8"):
            opened(path)


@pytest.mark.skipif(
    tuple(map(int, ort.__version__.split(".")[:2])) < (1, 24),
    reason="older onnxruntime cannot be told to be silent",
)
def test_onnxruntime_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Stdout is for data: onnxruntime tells there of an error that it will raise a second time."""
    path = damaged(tmp_path, b"Transpose", b"\xe6ranspose")
    with pytest.raises(ArtifactError, match="cannot load"):
        Model(path)
    assert capfd.readouterr() == ("", "")


def damaged(folder: Path, old: bytes, new: bytes) -> Path:
    path = folder / "gru.onnx"
    gru_artifact(path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path

"""What recognition is worth: a GRU written as a loop, as the native operator and as its Scan.

The cell has its reset gate before the recurrent product, which torch's own GRU has not. `rnnx.scan`
exports it as one native GRU; the Scan is the same export without recognition. They alternate.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime as ort
import torch

import rnnx
from rnnx.bench import measure
from rnnx.table import render
from rnnx_exporters import tidy

FEATURES = 40
SIZES = (64, 256)
LENGTHS = (1, 100)


class ResetBefore(torch.nn.Module):
    """A GRU as it was first published: n = tanh(x W + (r h) R + b)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.gates = torch.nn.Linear(FEATURES + hidden_size, 2 * hidden_size)
        self.candidate = torch.nn.Linear(FEATURES + hidden_size, hidden_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, y = rnnx.scan(self._step, x.new_zeros(x.shape[0], self.hidden_size), x)
        return torch.as_tensor(y)

    def _step(self, h: torch.Tensor, frame: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z, r = torch.sigmoid(self.gates(torch.cat([frame, h], -1))).chunk(2, -1)
        n = torch.tanh(self.candidate(torch.cat([frame, r * h], -1)))
        h = z * h + (1 - z) * n
        return h, h


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for hidden_size in SIZES:
            model = ResetBefore(hidden_size)
            models = {"native": _exported(model, Path(folder) / "native.onnx")}
            with _unrecognised():
                models["scan"] = _exported(model, Path(folder) / "scan.onnx")
            assert "GRU" in models["native"].contract.operators
            assert "Scan" in models["scan"].contract.operators
            rows += [_row(models, hidden_size, frames) for frames in LENGTHS]
    print(f"onnxruntime {ort.__version__}, torch {torch.__version__}, one thread")
    print(render(("hidden_size", "frames", "native us", "scan us", "scan/native"), rows))


@contextmanager
def _unrecognised() -> Iterator[None]:
    with mock.patch.object(tidy, "recognise", return_value=0):
        yield


def _exported(model: torch.nn.Module, path: Path) -> rnnx.Model:
    example = (torch.randn(2, 5, FEATURES),)
    rnnx.export(model, example, path, dynamic_shapes={"x": {0: "batch", 1: "time"}})
    return rnnx.Model(path)


def _row(models: dict[str, rnnx.Model], hidden_size: int, frames: int) -> tuple[str, ...]:
    x = np.random.default_rng(0).standard_normal((1, frames, FEATURES)).astype(np.float32)
    np.testing.assert_allclose(models["native"].run(x), models["scan"].run(x), atol=1e-5)
    found = measure({name: lambda model=model: model.run(x) for name, model in models.items()})
    native, scanned = found["native"], found["scan"]
    sizes = (str(hidden_size), str(frames))
    return (*sizes, f"{native.median:.1f}", f"{scanned.median:.1f}", f"{scanned.ratio:.2f}")


if __name__ == "__main__":
    main()

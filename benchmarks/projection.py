"""Which graph is faster for an LSTM with a projection: one native LSTM, or a Scan?

The exporter folds the projection P into the recurrence (`R h = (R P) u`) and writes one native LSTM
node, whose recurrence then costs 4 H² instead of 5 H P products a frame. The alternative is a Scan
whose body is the cell as it is written. Both are exported from the same weights and alternate.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

import rnnx
from rnnx.bench import measure
from rnnx.table import render
from rnnx_exporters.scan import scan

SIZES = ((40, 64, 32), (40, 128, 64), (40, 256, 64), (40, 512, 128), (40, 1024, 256))
LENGTHS = (1, 100)


class Native(torch.nn.Module):
    def __init__(self, features: int, hidden_size: int, proj_size: int) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(features, hidden_size, proj_size=proj_size, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.lstm(x)[0]
        return y


class Scanned(Native):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x.new_zeros(x.shape[0], self.lstm.proj_size)
        c = x.new_zeros(x.shape[0], self.lstm.hidden_size)
        _, y = scan(self._step, (h, c), x)
        return torch.as_tensor(y)

    def _step(
        self, state: tuple[torch.Tensor, torch.Tensor], frame: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        h, c = state
        lstm = self.lstm
        gates = torch.nn.functional.linear(frame, lstm.weight_ih_l0, lstm.bias_ih_l0)
        gates = gates + torch.nn.functional.linear(h, lstm.weight_hh_l0, lstm.bias_hh_l0)
        i, f, g, o = gates.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = (torch.sigmoid(o) * torch.tanh(c)) @ lstm.weight_hr_l0.T
        return (h, c), h


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for features, hidden_size, proj_size in SIZES:
            native = Native(features, hidden_size, proj_size)
            scanned = Scanned(features, hidden_size, proj_size)
            scanned.load_state_dict(native.state_dict())
            models = {
                name: _exported(model, features, Path(folder) / f"{name}.onnx")
                for name, model in (("native", native), ("scan", scanned))
            }
            rows += [_row(models, features, hidden_size, proj_size, n) for n in LENGTHS]
    print(f"onnxruntime {ort.__version__}, torch {torch.__version__}, one thread")
    print(
        render(("hidden_size", "proj_size", "frames", "native us", "scan us", "scan/native"), rows)
    )


def _exported(model: torch.nn.Module, features: int, path: Path) -> rnnx.Model:
    example = (torch.randn(2, 5, features),)
    rnnx.export(model, example, path, dynamic_shapes={"x": {0: "batch", 1: "time"}})
    return rnnx.Model(path)


def _row(
    models: dict[str, rnnx.Model], features: int, hidden_size: int, proj_size: int, frames: int
) -> tuple[str, ...]:
    x = np.random.default_rng(0).standard_normal((1, frames, features)).astype(np.float32)
    np.testing.assert_allclose(models["native"].run(x), models["scan"].run(x), atol=1e-5)
    found = measure({name: lambda model=model: model.run(x) for name, model in models.items()})
    native, scanned = found["native"], found["scan"]
    sizes = (str(hidden_size), str(proj_size), str(frames))
    return (*sizes, f"{native.median:.1f}", f"{scanned.median:.1f}", f"{scanned.ratio:.2f}")


if __name__ == "__main__":
    main()

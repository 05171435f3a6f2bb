"""Which graph is faster for an LSTM with a projection: one native LSTM, or a Scan?

The native node runs on `u`, where `h = P u`, with the weight `R P`; the Scan's body is the cell as
it is written. Both are exported from the same weights and alternate; the exporter writes the one in
the last column (`rnnx_exporters/projection.py`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime as ort
import torch

import rnnx
from rnnx.bench import measure
from rnnx.table import render
from rnnx_exporters import recurrent
from rnnx_exporters.projection import scan_is_faster

FEATURES = 40
SIZES = ((64, 32), (128, 64), (256, 64), (512, 128), (512, 256), (1024, 256))
LENGTHS = (1, 100)
HEADER = ("hidden_size", "proj_size", "frames", "native us", "scan us", "scan/native", "written")


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for hidden_size, proj_size in SIZES:
            lstm = torch.nn.LSTM(FEATURES, hidden_size, proj_size=proj_size, batch_first=True)
            native = _exported(lstm, Path(folder) / "native.onnx", scans=False)
            scanned = _exported(lstm, Path(folder) / "scan.onnx", scans=True)
            models = {"native": native, "scan": scanned}
            rows += [_row(models, hidden_size, proj_size, frames) for frames in LENGTHS]
    print(f"onnxruntime {ort.__version__}, torch {torch.__version__}, one thread")
    print(render(HEADER, rows))


def _exported(lstm: torch.nn.LSTM, path: Path, *, scans: bool) -> rnnx.Model:
    with mock.patch.object(recurrent, "scan_is_faster", return_value=scans):
        contract = rnnx.export(
            lstm,
            (torch.randn(2, 5, FEATURES),),
            path,
            output_names=("y", "h", "c"),
            dynamic_shapes={"input": {0: "batch", 1: "time"}},
        )
    assert ("Scan" in contract.operators) == scans
    return rnnx.Model(path)


def _row(
    models: dict[str, rnnx.Model], hidden_size: int, proj_size: int, frames: int
) -> tuple[str, ...]:
    x = np.random.default_rng(0).standard_normal((1, frames, FEATURES)).astype(np.float32)
    results = [model.run(x) for model in models.values()]
    for name in ("y", "h", "c"):
        np.testing.assert_allclose(*(result[name] for result in results), atol=1e-5)
    found = measure({name: lambda model=model: model.run(x) for name, model in models.items()})
    native, scanned = found["native"], found["scan"]
    sizes = (str(hidden_size), str(proj_size), str(frames))
    written = "scan" if scan_is_faster(hidden_size, proj_size) else "native"
    times = (f"{native.median:.1f}", f"{scanned.median:.1f}", f"{scanned.ratio:.2f}")
    return (*sizes, *times, written)


if __name__ == "__main__":
    main()

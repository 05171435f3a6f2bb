"""What a step costs in int8: a layer of each kind and size, against the float32 file, in turn.

The weights are random: for how long a step takes they do not matter.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from conditions import on_one_core
from torch import nn

import rnnx
from rnnx.bench import measure
from rnnx.table import render

KINDS = {"GRU": nn.GRU, "LSTM": nn.LSTM, "RNN": nn.RNN}
SIZES = (128, 256, 512, 1024)
LEVELS = ("int8-store", "int8", "int8-block", "int4")
SECONDS = 3.0


class Layer(nn.Module):
    def __init__(self, kind: str, hidden_size: int) -> None:
        super().__init__()
        self.recurrent = KINDS[kind](hidden_size, hidden_size, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.recurrent(x)[0]


def main() -> None:
    torch.manual_seed(0)
    on_one_core()
    with tempfile.TemporaryDirectory() as folder:
        rows = [rows_of(Path(folder), kind, size) for kind in KINDS for size in SIZES]
    head = ["one step", "level", "median us", "times as fast", "times smaller", "SNR dB"]
    print(render(head, [row for of in rows for row in of]))


def rows_of(folder: Path, kind: str, hidden_size: int) -> list[list[str]]:
    files = {"float32": folder / f"{kind}{hidden_size}.onnx"}
    example = (torch.randn(2, 20, hidden_size),)
    rnnx.export(Layer(kind, hidden_size), example, files["float32"], streaming=True)
    reports = {}
    for level in LEVELS:
        files[level] = folder / f"{kind}{hidden_size}.{level}.onnx"
        reports[level] = rnnx.quantize(files["float32"], files[level], level=level)
    x = np.random.default_rng(0).standard_normal((1, 1, hidden_size)).astype(np.float32)
    streams = {level: rnnx.Stream(path) for level, path in files.items()}
    runs = {level: lambda stream=stream: stream.feed(x) for level, stream in streams.items()}
    timings = measure(runs, seconds=SECONDS)
    size = files["float32"].stat().st_size
    return [
        [
            f"{kind} {hidden_size}",
            level,
            f"{timing.median:.1f}",
            f"{1 / timing.ratio:.2f}",
            f"{size / files[level].stat().st_size:.2f}",
            f"{reports[level].snr_db['y']:.1f}" if level in reports else "",
        ]
        for level, timing in timings.items()
    ]


if __name__ == "__main__":
    main()

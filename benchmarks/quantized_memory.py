"""What a large network takes in memory at each level: every file in fresh processes of its own.

Told is the most resident memory that opening the file and a few steps take beyond the imports.
The weights are random: for how much memory they take they do not matter.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from conditions import tell
from quantized_step import Layer

import rnnx
from rnnx.quantization.levels import LEVELS
from rnnx.starting import Start, starts
from rnnx.table import render

HIDDEN_SIZE = 2048
HEAD = ["level", "file MB", "most memory MB", "of float32's", "opening ms"]


def main() -> None:
    tell(f"GRU of {HIDDEN_SIZE} over {HIDDEN_SIZE} features, one frame at a time")
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        paths = files(Path(folder))
        found = starts([str(path) for path in paths.values()], chunk=1, batch=1)
        rows = [row(*each, found[0]) for each in zip(paths.items(), found, strict=True)]
    print(render(HEAD, rows))


def files(folder: Path) -> dict[str, Path]:
    """The layer at every level, float32 first."""
    paths = {level: folder / f"{level}.onnx" for level in ("float32", *LEVELS)}
    example = (torch.randn(2, 20, HIDDEN_SIZE),)
    rnnx.export(Layer("GRU", HIDDEN_SIZE), example, paths["float32"], streaming=True)
    for level in LEVELS:
        rnnx.quantize(paths["float32"], paths[level], level=level)
    return paths


def row(file: tuple[str, Path], start: Start, full: Start) -> list[str]:
    level, path = file
    return [
        level,
        f"{path.stat().st_size / 1e6:.1f}",
        f"{start.memory / 1e6:.1f}",
        f"{start.memory / full.memory:.2f}",
        f"{start.opening:.0f}",
    ]


if __name__ == "__main__":
    main()

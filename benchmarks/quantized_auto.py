"""Level auto against the uniform levels, on networks that were trained, at several budgets.

For each budget the size that auto finds, and the smallest level that keeps the same budget. The
networks are those of `trained.py`; budgets are kept on what they were trained on.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import torch
from conditions import on_one_core
from quantized_trained import first, write_levels
from trained import FOLDER, NETS

import rnnx
from rnnx.quantization.levels import LEVELS
from rnnx.table import render

BUDGETS = (25, 35, 45)  # dB
FRAMES = 1000


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True)
@click.option("--net", "names", multiple=True, type=click.Choice(list(NETS)), help="Repeatable.")
def main(folder: Path, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    on_one_core(f"{FRAMES} frames")
    rows = [row for name in names or ("GRU 256", "LSTM 256", "RNN 256") for row in of(name, folder)]
    print(
        render(["network", "budget", "auto KB", "SNR dB", "smallest level", "KB", "SNR dB"], rows)
    )


def of(name: str, folder: Path) -> list[list[str]]:
    print(f"{name} ...", file=sys.stderr)
    train = first(NETS[name].series().parts()[0])
    data = train.x[None, :FRAMES]
    with tempfile.TemporaryDirectory() as scratch:
        path = write_levels(name, folder, Path(scratch), train)
        source, small = path["float32"], Path(scratch) / "small.onnx"
        reports = [rnnx.quantize(source, small, level=each, calibration=data) for each in LEVELS]
        found = [
            rnnx.quantize(source, small, level="auto", budget=f"snr={budget}", calibration=data)
            for budget in BUDGETS
        ]
    return [row(name, b, auto, reports) for b, auto in zip(BUDGETS, found, strict=True)]


def row(name: str, budget: int, auto, reports) -> list[str]:
    met = [report for report in reports if (report.worst_snr_db or 0) >= budget]
    best = min(met, key=lambda report: report.output_bytes)
    cells = [name, f"{budget} dB", f"{auto.output_bytes / 1024:.1f}", f"{auto.worst_snr_db:.1f}"]
    return [*cells, best.level, f"{best.output_bytes / 1024:.1f}", f"{best.worst_snr_db:.1f}"]


if __name__ == "__main__":
    main()

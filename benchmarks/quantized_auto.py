"""Level auto against the uniform levels, on networks that were trained, at several budgets.

For each budget what auto finds, and the smallest level that keeps the same budget. The networks are
the character models of `trained.py`; budgets are kept on what they were trained on, and what that
costs is measured on what was held out as well. bpc: bits per character.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import torch
from conditions import on_one_core
from quantized_trained import first, loss_of, streamed
from trained import FOLDER, NETS, Array, trained

import rnnx
from rnnx.quantization.budget import Budget
from rnnx.quantization.report import Point, QuantizationReport
from rnnx.table import render

NAMES = ("GRU 256", "LSTM 256", "RNN 256")
BUDGETS = ("snr=25", "snr=35", "snr=45", "metric=+0.1%", "metric=+0.5%")
FRAMES = 4000
HEAD = ["network", "budget", "auto KB", "SNR dB", "bpc", "held-out bpc"]
LEVEL = ["smallest level", "KB", "SNR dB", "bpc"]


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True)
@click.option("--net", "names", multiple=True, type=click.Choice(NAMES), help="Repeatable.")
def main(folder: Path, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    on_one_core(f"{FRAMES} frames")
    rows = [row for name in names or NAMES for row in rows_of(name, folder)]
    print(render([*HEAD, *LEVEL], rows))


def rows_of(name: str, folder: Path) -> list[list[str]]:
    train, held_out = (first(part) for part in NETS[name].series().parts())
    x, target = train.x[None, :FRAMES], train.target[None, :FRAMES]

    def bits(outputs: dict[str, Array], inputs: dict[str, Array]) -> float:
        (logits,) = outputs.values()
        return loss_of(name, logits, inputs["target"])

    bits.lower_is_better = True  # type: ignore[attr-defined]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        source, small = (Path(scratch) / f"{each}.onnx" for each in ("source", "small"))
        rnnx.export(trained(name, folder), (torch.from_numpy(x[:, :20]),), source, streaming=True)
        (port,) = rnnx.load_contract(source).inputs
        before = loss_of(name, streamed(source, held_out.x), held_out.target)
        for budget in BUDGETS:
            print(f"{name}, {budget} ...", file=sys.stderr, flush=True)
            report = rnnx.quantize(
                source,
                small,
                level="auto",
                budget=budget,
                calibration={port.name: x, "target": target},
                metric=bits,
            )
            after = loss_of(name, streamed(small, held_out.x), held_out.target)
            rows.append([name, *row(report, after / before)])
    return rows


def row(report: QuantizationReport, held_out: float) -> list[str]:
    budget = Budget.parse(report.budget or "").from_reference(report.source_figure)
    level = min(filter(budget.is_met, report.levels), key=budget.order)
    size, snr_db, change = cells(report.chosen, report)
    return [str(budget), size, snr_db, change, percent(held_out), level.name, *cells(level, report)]


def cells(point: Point, report: QuantizationReport) -> list[str]:
    change = percent(point.figure / report.source_figure)
    return [f"{point.bytes / 1024:.1f}", f"{point.snr_db:.1f}", change]


def percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.3f} %"


if __name__ == "__main__":
    main()

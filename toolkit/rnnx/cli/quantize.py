"""`rnnx quantize`: make an artifact smaller, and measure what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rnnx.cli.common import as_json, human_bytes, output_option, talk
from rnnx.table import render

if TYPE_CHECKING:
    from rnnx.quantization import QuantizationReport


@click.command("quantize")
@click.argument("model", type=click.Path(dir_okay=False))
@output_option()
@click.option(
    "--level",
    default="int8",
    show_default=True,
    help="fp16-store: weights kept as float16. int8-store: kept as int8. int8: recurrent layers"
    " compute in int8, all else as int8-store. int8-block: likewise, in blocks, so that neither"
    " chunks nor other sequences of a batch change a bit.",
)
@click.option(
    "--calibrate",
    type=click.Path(dir_okay=False),
    help="Measure on this data: arrays by input name (.npz), or the only input's (.npy).",
)
@as_json
def command(model: str, output: str, level: str, calibrate: str | None, as_json: bool) -> None:
    """Make MODEL smaller and measure what it costs, before it is written.

    \b
    Example:
        rnnx quantize model.onnx -o small.onnx --level int8 --calibrate data.npz
    """
    from rnnx.quantization import quantize

    talk(f"quantizing {model} and measuring it against the original ...")
    report = quantize(model, output, level=level, calibration=calibrate)
    if as_json:
        click.echo(report.to_json())
        return
    click.echo(_table(report))
    for note in report.notes:
        talk(f"note: {note}")
    talk(f"\nwrote {output}; next: rnnx bench {output} --against {model}")


def _table(report: QuantizationReport) -> str:
    changed = ", ".join(f"{count} {operator}" for operator, count in sorted(report.changed.items()))
    sizes = f"{human_bytes(report.source_bytes)} -> {human_bytes(report.output_bytes)}"
    rows = [
        ["size", f"{sizes} ({report.ratio:.2f}x smaller)"],
        *([f"SNR of {name}", f"{snr:.1f} dB"] for name, snr in report.snr_db.items()),
        ["step time", f"{report.step_time_ratio:.2f}x the original's"],
        ["changed", changed],
    ]
    return render([report.level, f"measured on {report.measured_on}"], rows)

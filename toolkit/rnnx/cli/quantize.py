"""`rnnx quantize`: make an artifact smaller, and measure what it costs."""

from __future__ import annotations

from itertools import compress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnx.cli.common import as_json, human_bytes, print_json, refuse_unused, talk
from rnnx.table import render

if TYPE_CHECKING:
    from rnnx.quantization import QuantizationReport
    from rnnx.quantization.comparison import Compared
    from rnnx.quantization.report import Point


@click.command("quantize")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="The file to write; a folder for a folder.")
@click.option(
    "--level",
    default="int8",
    show_default=True,
    help="fp16-store: weights kept as float16. int8-store: kept as int8. int4-store: kept with"
    " four bits. int8: recurrent layers compute in int8, all else as int8-store. int8-block:"
    " likewise, in blocks, so that neither chunks nor other sequences of a batch change a bit."
    " int4: likewise, of four bits, all else as int8-store; four bits are rounded by the"
    " calibration data. auto: bits for each part of the weights, as --budget allows.",
)
@click.option(
    "--calibrate",
    metavar="FILE|FOLDER|SPEC",
    help="Measure on this data: arrays by input name (.npz), or the only input's (.npy); a folder"
    " of such files; or module:function or path.py:function, a generator of such arrays. Of an"
    " encoder-decoder, sources: src, and lengths. No more is read once there are 100,000 frames.",
)
@click.option(
    "--chunk", type=click.IntRange(min=1), help="Frames fed at a time on the device; one, mostly."
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Sequences that advance together on the device; as in the data, else one.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Time every way to compute each recurrent layer here, at --chunk and --batch, and take the"
    " fastest.",
)
@click.option(
    "--budget",
    metavar="snr=DB|size=SIZE|metric=PERCENT",
    help="For --level auto: the least SNR of any output (snr=35), the most the file may take"
    " (size=200KB), or by how much the --metric may be worse than the original's (metric=-0.5%"
    " where a higher figure is better, metric=+0.5% where a lower one is).",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False),
    help="With --level auto, draw what was measured into this file (.png, .svg or .pdf).",
)
@click.option("--compare", is_flag=True, help="Measure all levels side by side; write none.")
@click.option(
    "--metric",
    metavar="SPEC",
    help="Your own figure over --calibrate: module:function or path.py:function, called with the"
    " outputs and the inputs by name, and with what else the .npz holds. Of an encoder-decoder, the"
    " outputs are ids, lengths and scores of what it writes.",
)
@as_json
@click.pass_context
def command(
    context: click.Context,
    model: str,
    output: str | None,
    level: str,
    calibrate: str | None,
    chunk: int | None,
    batch: int | None,
    tune: bool,
    budget: str | None,
    picture: str | None,
    compare: bool,
    metric: str | None,
    as_json: bool,
) -> None:
    """Make MODEL smaller and measure what it costs, before it is written.

    MODEL is an artifact, or the folder of an encoder-decoder.

    \b
    Examples:
        rnnx quantize model.onnx --compare
        rnnx quantize model.onnx --compare --calibrate heldout.npz --metric score.py:accuracy
        rnnx quantize model.onnx -o small.onnx --level auto --budget snr=35
        rnnx quantize model.onnx -o small.onnx --level auto --budget metric=-0.5% \\
            --metric score.py:accuracy --calibrate heldout.npz
        rnnx quantize model.onnx -o small.onnx --level int8 --calibrate data.py:sequences
    """
    from rnnx.user_code import load_function

    if not compare and output is None:
        raise click.UsageError("Give the file to write with -o, or --compare.")
    if compare:
        unused = {"output", "level", "budget", "picture"}
        refuse_unused(context, unused, "--compare, which measures every level and writes none,")
    if picture is not None:
        _refuse_picture(picture, level, model)
    function = None if metric is None else load_function(metric)
    options: dict[str, Any] = {
        "calibration": calibrate,
        "chunk": chunk,
        "batch": batch,
        "tune": tune,
        "metric": function,
        "tell": talk,
    }
    if output is None:
        _compare(model, metric, options, as_json)
        return
    from rnnx.quantization import quantize

    talk(f"quantizing {model} and measuring it against the original ...")
    report = quantize(model, output, level=level, budget=budget, **options)
    if picture is not None:
        _draw(picture, report)
    if as_json:
        click.echo(report.to_json())
    else:
        _tell(report, model, output)


def _refuse_picture(picture: str, level: str, model: str) -> None:
    """Refuse what cannot be drawn before anything is measured."""
    import matplotlib  # noqa: F401

    from rnnx.picture_file import refuse_unfit

    if level != "auto":
        raise click.UsageError("--picture draws what --level auto measured: give that level.")
    if Path(model).is_dir():
        raise click.UsageError("--picture draws what was measured of one file; a folder has two.")
    refuse_unfit(picture)


def _draw(picture: str, report: QuantizationReport) -> None:
    from rnnx.quantization.front_picture import draw

    draw(picture, report)
    talk(f"drew {picture}")


def _tell(report: QuantizationReport, model: str, output: str) -> None:
    click.echo(_table(report))
    if report.front:
        click.echo(f"\n{_front(report)}")
    for note in (*report.reasons, *report.notes):
        talk(f"note: {note}")
    following = "rnnx check" if Path(model).is_dir() else "rnnx bench"
    talk(f"\nwrote {output}; next: {following} {output} --against {model}")


def _front(report: QuantizationReport) -> str:
    """What nothing else beats, smallest first, and the levels; a star at what was taken."""
    beaten = [point for point in report.levels if point not in report.front]
    points = sorted([*report.front, *beaten], key=lambda point: point.bytes)
    rows = [[*_point(point, report), "beaten" if point in beaten else ""] for point in points]
    head = ["measured", "size", "times smaller", "step time", "worst SNR", report.metric or ""]
    return _filled([*head, "by others"], rows)


def _point(point: Point, report: QuantizationReport) -> list[str]:
    return [
        f"{point.name} *" if point == report.chosen else point.name,
        human_bytes(point.bytes),
        f"{report.source_bytes / point.bytes:.2f}",
        "" if point.step_time_ratio is None else f"{point.step_time_ratio:.2f}",
        _decibels(point.snr_db),
        _number(point.figure),
    ]


def _compare(model: str, metric: str | None, options: dict[str, Any], as_json: bool) -> None:
    import dataclasses

    from rnnx.quantization.comparison import compare_levels

    found = compare_levels(model, **options)
    if as_json:
        print_json({"model": model, "metric": metric, **dataclasses.asdict(found)})
        return
    own = ["float32", human_bytes(found.bytes), "1.00", "1.00", "", "", _bytes(found.memory)]
    rows = [[*own, _number(found.figure)], *map(_compared, found.levels)]
    head = ["level", "size", "times smaller", "step time", "worst SNR", "top-1 agreement", "memory"]
    click.echo(_filled([*head, metric or "metric"], rows))
    for note in (each.reason for each in found.levels if each.reason):
        talk(f"note: {note}")


def _compared(each: Compared) -> list[str]:
    report = each.report
    if report is None:
        return [each.level, "refused", *[""] * 6]
    return [
        each.level,
        human_bytes(report.output_bytes),
        f"{report.ratio:.2f}",
        f"{report.step_time_ratio:.2f}",
        _decibels(report.worst_snr_db),
        "" if each.agreement is None else f"{100 * each.agreement:.1f} %",
        _bytes(each.memory),
        _number(each.figure),
    ]


def _filled(head: list[str], rows: list[list[str]]) -> str:
    """The table, without columns that say nothing."""
    filled = [any(cells) for cells in zip(*rows, strict=True)]
    header, *body = (list(compress(cells, filled)) for cells in (head, *rows))
    return render(header, body)


def _bytes(count: float | None) -> str:
    return "" if count is None else human_bytes(int(count))


def _decibels(snr_db: float | None) -> str:
    return "" if snr_db is None else f"{snr_db:.1f} dB"


def _number(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.6g}"


def _table(report: QuantizationReport) -> str:
    from rnnx.quantization.report import INVARIANCE

    changed = ", ".join(f"{count} {operator}" for operator, count in sorted(report.changed.items()))
    sizes = f"{human_bytes(report.source_bytes)} -> {human_bytes(report.output_bytes)}"
    rows = [
        ["size", f"{sizes} ({report.ratio:.2f}x smaller)"],
        *([f"SNR of {name}", f"{snr:.1f} dB"] for name, snr in report.snr_db.items()),
        *_agreement(report),
        *_figures(report),
        ["step time", f"{report.step_time_ratio:.2f}x the original's"],
        ["measured at", _deployed(report)],
        ["invariance", INVARIANCE[report.invariance]],
        ["changed", changed],
    ]
    return render([report.level, f"measured on {report.measured_on}"], rows)


def _agreement(report: QuantizationReport) -> list[list[str]]:
    if report.agreement is None:
        return []
    return [["top-1 agreement", f"{100 * report.agreement:.1f} %"]]


def _figures(report: QuantizationReport) -> list[list[str]]:
    if report.metric is None:
        return []
    figures = map(_number, (report.figure, report.source_figure))
    return [[report.metric, "{}, the original {}".format(*figures)]]


def _deployed(report: QuantizationReport) -> str:
    frames = "whole sequences" if report.chunk is None else _counted(report.chunk, "frame")
    return f"{frames} at a time, {_counted(report.batch, 'sequence')} at once"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"

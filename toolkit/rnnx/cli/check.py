"""`rnnx check`: is the artifact still the same network?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from rnnx.cli.common import as_json, talk

if TYPE_CHECKING:
    from rnnx.parity import Metric


@click.command("check")
@click.argument("artifact", type=click.Path())
@click.option(
    "--against",
    required=True,
    metavar="SPEC|FILE",
    help="The PyTorch model, or another artifact of it (.onnx, or an encoder-decoder's folder).",
)
@click.option("--weights", metavar="FILE", help="A state dict to load into the model (.pt).")
@click.option(
    "--inputs",
    multiple=True,
    metavar="FILE",
    help="Your own sequences: arrays by input name (.npz), or the only input's (.npy). Repeatable.",
)
@click.option(
    "--metric",
    metavar="SPEC",
    help="Your own figure over --inputs: module:function or path.py:function, called with the"
    " outputs and the inputs by name, and with what else the .npz holds.",
)
@click.option("--metric-floor", type=float, metavar="FIGURE", help="The worst that passes.")
@click.option(
    "--metric-drop",
    metavar="DROP",
    help="How much worse than the reference passes: 0.01, or 0.5% of what that reaches.",
)
@click.option("--rtol", type=float, default=1e-4, show_default=True, help="Relative tolerance.")
@click.option(
    "--atol",
    multiple=True,
    metavar="NUMBER|OUTPUT=NUMBER",
    default=["1e-5"],
    show_default=True,
    help="Absolute tolerance, of all or of one output or state. Repeatable.",
)
@click.option(
    "--snr",
    "snr_db",
    type=float,
    metavar="DB",
    help="Signal to noise ratio to reach in place of the tolerance; 30 where quantized.",
)
@click.option(
    "--agreement",
    type=click.FloatRange(0, 1),
    help="Least share of places where the largest value is the same one, where quantized.",
)
@click.option("--chunk", type=click.IntRange(min=1), help="Frames of a call as deployed.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Sequences of a call as deployed.",
)
@click.option("--probe", "probes", multiple=True, metavar="NAME", help="Run this only. Repeatable.")
@click.option("--locate", is_flag=True, help="Find the block that leaves the model first.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random inputs."
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="KIND:FILE",
    help="Also write a report: text, json, junit, markdown, github or html. Repeat for more. FILE -"
    " is stdout, in place of the table.",
)
@as_json
def command(
    artifact: str,
    against: str,
    weights: str | None,
    inputs: tuple[str, ...],
    metric: str | None,
    metric_floor: float | None,
    metric_drop: str | None,
    atol: tuple[str, ...],
    probes: tuple[str, ...],
    reports: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Prove that ARTIFACT equals the PyTorch model SPEC, or the artifact FILE.

    Runs both from random states at several batches and lengths, and a streaming artifact also chunk
    by chunk through the runner. Exit code 0: equal, 1: not equal, 2: misuse.

    \b
    Examples:
        rnnx check m.onnx --against net.py:build --weights net.pt
        rnnx check small.onnx --against m.onnx --snr 40
        rnnx check m.onnx --against net.py:build --inputs heldout.npz \\
            --metric score.py:accuracy --metric-drop 0.5%
        rnnx check m.onnx --against net.py:build --locate
    """
    from rnnx.parity import check
    from rnnx.parity.reports import read_targets, write
    from rnnx_runtime.files import refuse_overwriting

    targets = read_targets(reports)
    files = [target.path for target in targets if not target.is_stdout]
    for file in files:
        refuse_overwriting(file, artifact, against.partition(":")[0], weights, *inputs)
    tolerance = _tolerance(atol)
    figure = _metric(metric, metric_floor, metric_drop)
    model, args = _reference(against, weights)
    talk(f"checking {artifact} against {against}")
    report = check(
        artifact,
        model,
        args,
        inputs=list(inputs) or None,
        metric=figure,
        atol=tolerance,
        probes=probes or None,
        **options,
    )
    write(report, [target for target in targets if not target.is_stdout])
    printed = ["json"] * as_json + [target.kind for target in targets if target.is_stdout]
    for kind in printed or ["text"]:
        click.echo(report.render(kind))
    if not report.passed and weights is None and not isinstance(model, str):
        talk(
            f"note: {against} was built without --weights, so its weights are random unless its own"
            f" code loads some. If {artifact} was exported with others, add --weights FILE."
        )
    return 0 if report.passed else 1


def _reference(against: str, weights: str | None) -> tuple[Any, tuple[Any, ...] | None]:
    """The path of an artifact, or the model that a SPEC names with its example arguments."""
    from rnnx_runtime.errors import SpecError

    if against.endswith(".onnx") or os.path.isdir(against):
        if weights is not None:
            raise SpecError(f"{against!r} holds its own weights; leave --weights out")
        return against, None
    import torch

    from rnnx.spec import load_model

    loaded = load_model(against, weights)
    if not isinstance(loaded.model, torch.nn.Module):
        raise SpecError(
            "a .pt2 program is no reference: its sizes are frozen", hint="Name the nn.Module."
        )
    return loaded.model, loaded.args


def _metric(spec: str | None, floor: float | None, drop: str | None) -> Metric | None:
    from rnnx.parity import Metric
    from rnnx.user_code import load_function

    if spec is not None:
        return Metric(load_function(spec), floor, drop)
    if floor is not None or drop is not None:
        raise click.UsageError("--metric-floor and --metric-drop are limits of a --metric")
    return None


def _tolerance(values: tuple[str, ...]) -> dict[str, float]:
    """Numbers by output; under "" that of all others."""
    return {name: _number(number) for name, _, number in (v.rpartition("=") for v in values)}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not a valid float; give 1e-5, or y=1e-5 for the output y",
            param_hint="--atol",
        ) from error

"""`rnnx demo`: a real network, all the way from training to a small streaming artifact."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rnnx.cli.common import as_json, human_bytes, print_json, refuse_unused, talk
from rnnx.recipes import NAMES, find
from rnnx.table import render

if TYPE_CHECKING:
    from rnnx.recipes.gradients import Trace
    from rnnx.recipes.pipeline import Result, Row
    from rnnx.recipes.recipe import Metric, Recipe

_PICTURES = ("state", "gates", "attention")
# What is no recipe, and the options that it has no use for; recipes have one for all.
_OTHERS = {
    "gradients": {"cell", "fetch"},
    "state": {"cell", "full", "seed", "fetch"},
    "gates": {"cell", "full", "fetch"},
    "attention": {"cell", "full", "fetch"},
    "stream": {"output_dir", "cell", "full", "seed", "fetch"},
    "write": {"output_dir", "cell", "full", "fetch"},
}


@click.command("demo")
@click.argument("name", metavar="[NAME]", type=click.Choice([*NAMES, *_OTHERS]), default="forecast")
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(file_okay=False),
    default="demo",
    show_default=True,
    help="The folder to write to.",
)
@click.option("--cell", type=click.Choice(["rnn", "gru", "lstm"]), help="The recurrent layer.")
@click.option("--full", is_flag=True, help="The larger size; takes longer.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
@click.option("--fetch", is_flag=True, help="Download the recipe's data where it is not here.")
@as_json
@click.pass_context
def command(
    context: click.Context,
    name: str,
    output_dir: str,
    cell: str | None,
    full: bool,
    seed: int,
    fetch: bool,
    as_json: bool,
) -> int:
    """Train, export, check, quantize and stream a real network, and score each form of it.

    NAME is a recipe, and docs/recipes.md tells of each: forecast, charlm, keywords, speech, tagger,
    streaming_tagger, entities, phonemes, translate or summarize. forecast, the default: a GRU reads
    Seattle's temperatures hour by hour and forecasts the next hour, in less than a minute on two
    cores. Needs rnnx[export,report,recipes]. Exit code 0: the artifacts equal the torch model, 1:
    they do not.

    gradients, state, gates and attention keep no network; they draw how such networks work, for
    docs/recurrent-networks.md. stream and write run artifacts that come with rnnx, and need
    nothing else: the first forecasts three days, the second writes a text.
    """
    refuse_unused(context, _OTHERS.get(name, set()), f"rnnx demo {name}")
    if name == "stream":
        return _stream(as_json)
    if name == "write":
        return _write(seed, as_json)
    import torch

    from rnnx.recipes import pipeline

    torch.set_num_threads(1)  # networks this small gain nothing from a second
    if name == "gradients":
        return _gradients(output_dir, full, seed, as_json)
    if name in _PICTURES:
        return _picture(name, Path(output_dir), seed, as_json)
    recipe = find(name)
    if fetch:
        _fetch(recipe)
    result = pipeline.run(recipe, output_dir, cell=cell, full=full, seed=seed, tell=talk)
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        _tell(result, recipe)
    return 0 if result.passed else 1


def _stream(as_json: bool) -> int:
    from rnnx.cli.stream import command as stream
    from rnnx.recipes.shipped import FORECASTER, HOURS

    arguments = [str(FORECASTER), "--input", str(HOURS), *(["--json"] if as_json else [])]
    talk(f"rnnx stream {' '.join(arguments)}")
    code: int = stream.main(arguments, standalone_mode=False)
    return code


def _write(seed: int, as_json: bool) -> int:
    import numpy as np

    from rnnx.recipes.shipped import WRITER
    from rnnx.recipes.writing import write
    from rnnx_runtime import Stream

    talk(f"{WRITER} writes, a character at a time:")
    text = write(Stream(WRITER), "And it came to pass", 400, np.random.default_rng(seed))
    if as_json:
        print_json({"text": text})
    else:
        click.echo(text)
    return 0


def _gradients(output_dir: str, full: bool, seed: int, as_json: bool) -> int:
    from rnnx.recipes import gradients

    traces = gradients.run(output_dir, full=full, seed=seed, tell=talk)
    if as_json:
        print_json([trace.record() for trace in traces])
        return 0
    back = len(traces[0].initial) - 1
    header = ("", f"gradient {back} frames back", "trained", "loss", "truncated", "naive")
    click.echo(render(header, [_trace_cells(trace) for trace in traces]))
    talk("\ngradients are relative to those at the last frame")
    talk(f"wrote {output_dir}/gradients.png, {output_dir}/learning.png")
    return 0


def _picture(name: str, folder: Path, seed: int, as_json: bool) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    path = import_module(f"rnnx.recipes.{name}").run(folder, seed=seed, tell=talk)
    if as_json:
        print_json({"picture": str(path)})
    else:
        click.echo(f"picture: {path}")
    return 0


def _trace_cells(trace: Trace) -> tuple[str, ...]:
    from rnnx.recipes.gradients import LAST

    reaches = (norms[-1] / norms[0] for norms in (trace.initial, trace.trained))
    losses = (trace.full[-LAST:].mean(), trace.truncated[-LAST:].mean(), trace.naive)
    return (
        f"{trace.task}: {trace.network}",
        *(f"{reach:.1e}" for reach in reaches),
        *(f"{loss:.4f}" for loss in losses),
    )


def _fetch(recipe: Recipe) -> None:
    from rnnx.recipes.packages import fetch

    for package in recipe.packages:
        talk(f"{package} is in {fetch(package)}")


def _tell(result: Result, recipe: Recipe) -> None:
    header = ("", "size", "max error against torch", "one step", recipe.metric.name)
    click.echo(render(header, [_cells(row, recipe.metric) for row in result.rows]))
    for name, note in result.notes.items():
        click.echo(f"\n{name}: {note}")
    verdict = "equal" if result.passed else "DO NOT EQUAL"
    talk(f"\ntrained in {result.training_s:.0f} s of CPU time; the artifacts {verdict} torch")
    talk(f"wrote {', '.join(row.file for row in result.rows if row.file)}")
    if recipe.streams and recipe.generation is None:
        talk(f"next: rnnx bench {result.row('streamed').file} --against {result.row('int8').file}")


def _cells(row: Row, metric: Metric) -> tuple[str, ...]:
    return (
        row.name,
        "" if row.bytes is None else human_bytes(row.bytes),
        "" if row.max_error is None else f"{row.max_error:.2g}",
        "" if row.step_us is None else f"{row.step_us:.0f} us",
        metric.text(row.score),
    )

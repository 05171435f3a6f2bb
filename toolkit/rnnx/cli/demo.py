"""`rnnx demo`: a real network, all the way from training to a small streaming artifact."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from rnnx.cli.common import as_json, human_bytes, print_json, talk
from rnnx.recipes import NAMES, find
from rnnx.table import render

if TYPE_CHECKING:
    from rnnx.recipes.pipeline import Result, Row
    from rnnx.recipes.recipe import Metric, Recipe


@click.command("demo")
@click.argument("name", type=click.Choice(NAMES), default="forecast")
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
def command(
    name: str,
    output_dir: str,
    cell: str | None,
    full: bool,
    seed: int,
    fetch: bool,
    as_json: bool,
) -> int:
    """Train, export, check, quantize and stream a real network, and score each form of it.

    NAME is a recipe; docs/recipes.md tells of each. forecast, the default: a GRU reads Seattle's
    temperatures hour by hour and forecasts the next hour, in less than a minute on two cores.
    Needs rnnx[export,report,recipes]. Exit code 0: the artifacts equal the torch model, 1: they do
    not.
    """
    import torch

    from rnnx.recipes import pipeline

    torch.set_num_threads(1)  # networks this small gain nothing from a second
    recipe = find(name)
    if fetch:
        _fetch(recipe)
    result = pipeline.run(recipe, output_dir, cell=cell, full=full, seed=seed, tell=talk)
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        _tell(result, recipe)
    return 0 if result.passed else 1


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
    talk(f"\ntrained in {result.training_s:.0f} s; the artifacts {verdict} torch")
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

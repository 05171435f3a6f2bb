"""`rnnx demo`: a real network, all the way from training to a small streaming artifact."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from rnnx.cli.common import as_json, human_bytes, print_json, talk
from rnnx.table import render

if TYPE_CHECKING:
    from rnnx.recipes.pipeline import Result, Row


@click.command("demo")
@click.argument("name", type=click.Choice(["forecast"]), default="forecast", expose_value=False)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(file_okay=False),
    default="demo",
    show_default=True,
    help="The folder to write to.",
)
@as_json
def command(output_dir: str, as_json: bool) -> int:
    """Train, export, check, quantize and stream a real network.

    forecast: a GRU reads Seattle's temperatures hour by hour and forecasts the next hour. Takes
    less than a minute on two cores, and needs rnnx[export,report,recipes]. Exit code 0: the
    artifact equals the torch model, 1: it does not.
    """
    import torch

    from rnnx.recipes.pipeline import run

    torch.set_num_threads(1)  # a network this small gains nothing from a second
    result = run(output_dir, on_progress=talk)
    if as_json:
        print_json(dataclasses.asdict(result))
    else:
        _tell(result)
    return 0 if result.passed else 1


def _tell(result: Result) -> None:
    header = ("", "size", "max error against torch", "one step", "forecast RMSE")
    click.echo(render(header, [_cells(row) for row in result.rows]))
    verdict = "equals" if result.passed else "DOES NOT EQUAL"
    talk(f"\nscored on {result.heldout_hours} held-out hours; the artifact {verdict} torch")
    talk(f"wrote {', '.join(result.files)}")
    weights, heldout, artifact, quantized, _ = result.files
    talk("next:")
    talk(f"  rnnx check {artifact} --against rnnx.recipes.forecast:Forecaster --weights {weights}")
    talk(f"  rnnx stream {artifact} --input {heldout}")
    talk(f"  rnnx bench {artifact} --against {quantized}")


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        "" if row.bytes is None else human_bytes(row.bytes),
        "" if row.max_error is None else f"{row.max_error:.2g} °F",
        "" if row.step_us is None else f"{row.step_us:.0f} us",
        f"{row.rmse:.3f} °F",
    )

"""`rnnx bench`: what a call of an artifact costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rnnx.cli.common import as_json, print_json, talk
from rnnx.table import render

if TYPE_CHECKING:
    from rnnx.bench import Timing
    from rnnx_runtime import Model

_HEADER = ("model", "chunk", "median us", "p95 us", "p99 us", "us a frame", "x real time", "ratio")


@click.command("bench")
@click.argument("model", type=click.Path(dir_okay=False))
@click.option(
    "--chunk",
    "chunks",
    multiple=True,
    default=(1, 16),
    show_default=True,
    type=click.IntRange(min=1),
    help="Frames in a call. Repeat for more.",
)
@click.option(
    "--batch", default=1, show_default=True, type=click.IntRange(min=1), help="Sequences in a call."
)
@click.option(
    "--seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Time to spend on each row.",
)
@click.option(
    "--against",
    multiple=True,
    type=click.Path(dir_okay=False),
    help="Another artifact, measured in turn with MODEL. Repeat for more.",
)
@as_json
def command(
    model: str,
    chunks: tuple[int, ...],
    batch: int,
    seconds: float,
    against: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure what a call of MODEL costs, on one thread, on random inputs.

    A streaming artifact is fed chunk after chunk; an offline one gets each chunk as a whole
    sequence. Times are of the whole call from Python, after a warm-up. The ratio is to MODEL: below
    1 is faster.
    """
    from rnnx_runtime import Model

    models = [Model(path) for path in (model, *against)]
    records: list[dict[str, Any]] = []
    for chunk in chunks:
        talk(f"measuring chunks of {chunk} for {seconds * len(models):g} s ...")
        records += _measure(models, chunk, batch, seconds)
    if as_json:
        print_json(records)
    else:
        click.echo(render(_HEADER, [_row(record) for record in records]))


def _measure(models: list[Model], chunk: int, batch: int, seconds: float) -> list[dict[str, Any]]:
    from rnnx.bench import measure

    runs = {str(index): _call(model, chunk, batch) for index, model in enumerate(models)}
    timings = measure(runs, seconds=seconds).values()
    return [
        {"model": model.path, "chunk": chunk, "batch": batch}
        | asdict(timing)
        | _per_frame(model, timing, chunk)
        for model, timing in zip(models, timings, strict=True)
    ]


def _call(model: Model, chunk: int, batch: int) -> Callable[[], object]:
    import numpy as np

    from rnnx_runtime.samples import random_inputs

    rng = np.random.default_rng(0)
    feeds = random_inputs(model.contract, rng, batch=batch, frames=chunk)
    run = model.stream(batch=batch).feed if model.contract.streaming else model.run
    return lambda: run(feeds)


def _per_frame(model: Model, timing: Timing, chunk: int) -> dict[str, float | None]:
    """Microseconds a frame, and how many times faster than the frames arrive, where known."""
    frame = timing.median / chunk
    rate = model.contract.sample_rate
    return {"frame": frame, "real_time": None if rate is None else 1e6 / (rate * frame)}


def _row(record: dict[str, Any]) -> list[str]:
    times = [f"{record[key]:.1f}" for key in ("median", "p95", "p99", "frame")]
    speed = "-" if record["real_time"] is None else f"{record['real_time']:.0f}"
    return [record["model"], str(record["chunk"]), *times, speed, f"{record['ratio']:.2f}"]

"""`rnnx bench`: what starting an artifact and calling it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnx.cli.common import as_json, print_json, talk
from rnnx.table import render

if TYPE_CHECKING:
    from rnnx.starting import Start
    from rnnx_runtime import Model

Records = list[dict[str, Any]]
Runs = dict[str, Callable[[], object]]

_CALLS = {
    "model": "model",
    "chunk": "chunk",
    "batch": "batch",
    "median us": "median",
    "p99 us": "p99",
    "ratio": "ratio",
    "cold us": "cold_median",
    "ratio cold": "cold_ratio",
    "us a frame": "frame",
    "x real time": "real_time",
}
_STARTS = {
    "model": "model",
    "import ms": "imports",
    "open ms": "opening",
    "first call ms": "first_call",
    "memory MB": "memory",
}


@click.command("bench")
@click.argument("model", type=click.Path())
@click.option(
    "--chunk",
    "chunks",
    multiple=True,
    type=click.IntRange(min=1),
    help="Frames in a call. Repeat for more.  [default: the fewest that run, and 16 times as many]",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    default=(1,),
    show_default=True,
    type=click.IntRange(min=1),
    help="Sequences in a call. Repeat for more.",
)
@click.option(
    "--seconds",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Time to spend on each row, half of it with cold caches.",
)
@click.option(
    "--against",
    multiple=True,
    type=click.Path(),
    help="Another artifact, measured in turn with MODEL on the same inputs. Repeat for more.",
)
@as_json
def command(
    model: str,
    chunks: tuple[int, ...],
    batches: tuple[int, ...],
    seconds: float,
    against: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure what starting MODEL and calling it costs, on one thread of one core.

    A streaming artifact is fed chunk after chunk; an offline one gets each chunk as a whole
    sequence. The inputs are random. Times are of the whole call from Python, after a warm-up: call
    after call, and cold, other data having filled the caches before each, as where a sensor gives a
    frame now and then. The ratios are to MODEL: below 1 is faster.

    A start is a fresh process, the median of a few: its imports, opening the artifact, and the
    first call; memory is the most that it holds beyond its imports.
    """
    from rnnx.bench import one_core
    from rnnx.starting import starts

    models = _opened((model, *against))
    chunks = _runnable(models, chunks)
    sizes = [(chunk, batch) for batch in batches for chunk in chunks]
    runs = [_runs(models, *size) for size in sizes]  # all are known to run before any is measured
    with one_core():
        calls = [
            record
            for size, alike in zip(sizes, runs, strict=True)
            for record in _measured(models, alike, *size, seconds)
        ]
        talk("starting each a few times ...")
        begun = starts([m.path for m in models], chunk=chunks[0], batch=batches[0])
    _show(calls, _started(models, begun), as_json)


def _opened(paths: Sequence[str]) -> list[Model]:
    from rnnx_runtime import InputError, Model

    for path in paths:
        if Path(path).is_dir():
            raise InputError(
                f"{path!r} is a folder, not an artifact",
                hint=f"Measure an encoder-decoder's graphs: `rnnx bench {path}/encoder.onnx`,"
                f" `rnnx bench {path}/step.onnx`.",
            )
    return [Model(path) for path in paths]


def _runnable(models: Sequence[Model], chunks: tuple[int, ...]) -> tuple[int, ...]:
    """The chunks to measure: those asked for, if each call of them runs the network once more."""
    from rnnx_runtime import InputError

    least = math.lcm(*(_least(model) for model in models))
    for chunk in chunks:
        if chunk % least:
            raise InputError(
                f"a call of {chunk} frames is not always a run of the network",
                hint=f"It runs multiples of {least} frames and holds others back: --chunk {least}.",
            )
    return chunks or (least, 16 * least)


def _least(model: Model) -> int:
    """Of how many frames a chunk is a multiple if every call runs the network."""
    contract = model.contract
    return contract.chunk_multiple if contract.streaming else contract.first_chunk


def _measured(
    models: Sequence[Model], runs: Runs, chunk: int, batch: int, seconds: float
) -> Records:
    from rnnx.bench import cold_caches, measure

    talk(f"measuring chunks of {chunk}, batch {batch}, for {seconds * len(models):g} s ...")
    hot = measure(runs, seconds=seconds / 2).values()
    cold = measure(runs, seconds=seconds / 2, before=cold_caches()).values()
    return [
        {"model": model.path, "chunk": chunk, "batch": batch}
        | asdict(timing)
        | {f"cold_{name}": value for name, value in asdict(cold_timing).items()}
        | _per_frame(model, timing.median / chunk)
        for model, timing, cold_timing in zip(models, hot, cold, strict=True)
    ]


def _runs(models: Sequence[Model], chunk: int, batch: int) -> Runs:
    """One call of each, by number, all of the same arrays."""
    import numpy as np

    from rnnx_runtime.samples import random_inputs

    first = models[0].contract
    feeds = random_inputs(first, np.random.default_rng(0), batch=batch, frames=chunk)
    return {str(index): _call(model, feeds, batch) for index, model in enumerate(models)}


def _call(model: Model, feeds: Mapping[str, Any], batch: int) -> Callable[[], object]:
    from rnnx_runtime import InputError

    run = model.stream(batch=batch).feed if model.contract.streaming else model.run
    try:
        run(feeds)
    except InputError as error:
        raise InputError(f"{model.path!r} cannot be measured: {error}", hint=error.hint) from error
    return lambda: run(feeds)


def _per_frame(model: Model, frame: float) -> dict[str, float | None]:
    """Microseconds a frame, and how many times faster than the frames arrive, where known."""
    rate = model.contract.sample_rate
    return {"frame": frame, "real_time": None if rate is None else 1e6 / (rate * frame)}


def _started(models: Sequence[Model], starts: Sequence[Start]) -> Records:
    pairs = zip(models, starts, strict=True)
    return [{"model": model.path} | asdict(start) for model, start in pairs]


def _show(calls: Records, starts: Records, as_json: bool) -> None:
    if as_json:
        print_json({"calls": calls, "starts": starts})
        return
    click.echo(render(list(_CALLS), [_row(record, _CALLS) for record in calls]) + "\n")
    click.echo(render(list(_STARTS), [_row(record, _STARTS) for record in starts]))


def _row(record: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    return [_cell(name, record[name]) for name in columns.values()]


def _cell(name: str, value: Any) -> str:
    if name == "memory":
        value /= 1 << 20
    if name == "real_time":
        return "-" if value is None else f"{value:.0f}"
    if isinstance(value, float):
        return f"{value:.2f}" if name == "frame" or "ratio" in name else f"{value:.1f}"
    return str(value)

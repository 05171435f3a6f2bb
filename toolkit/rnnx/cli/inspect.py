"""`rnnx inspect`: what an artifact is, and what it takes and gives."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnx.cli.common import as_json, delay_text, human_bytes, print_json

if TYPE_CHECKING:
    from rnnx_exporters.timetable import Row
    from rnnx_runtime import Contract, Port, State
    from rnnx_runtime.step import Step


@click.command("inspect")
@click.argument("model", type=click.Path(dir_okay=False))
@click.option("--timeline", is_flag=True, help="Show the time axis, stride and delay of each wire.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False),
    help="Draw the timeline into this file (.png, .svg or .pdf).",
)
@as_json
def command(model: str, timeline: bool, picture: str | None, as_json: bool) -> None:
    """Show what MODEL is, what it takes and gives, and what is known of its quality.

    With --timeline, MODEL may be any ONNX file: shown is how time runs through it when it streams.
    """
    from rnnx_runtime import Model

    if timeline or picture:
        _show_timeline(model, picture, as_json)
        return
    opened = Model(model)
    contract, step = opened.contract, opened.step
    size = Path(model).stat().st_size
    if as_json:
        counted: dict[str, int | None] = {
            "bytes": size,
            "state_bytes": _state_bytes(contract),
            "delay": contract.delay,
            "step_operators": None if step is None else step.operators,
        }
        print_json(json.loads(contract.to_json()) | counted)
        return
    click.echo(f"{model} ({human_bytes(size)}, {_kind(contract)})")
    for what, value in _facts(contract, step):
        click.echo(f"{what:<11}  {value}".rstrip())


def _show_timeline(model: str, picture: str | None, as_json: bool) -> None:
    import dataclasses

    from rnnx.table import render
    from rnnx_exporters.timetable import timetable

    rows = timetable(model)
    if picture is not None:
        from rnnx.timeline_picture import draw

        draw(picture, rows)
        click.echo(f"drew {picture}", err=True)
    if as_json:
        print_json([dataclasses.asdict(row) for row in rows])
        return
    header = ("wire", "operator", "module", "axis", "stride", "delay", "saw frames")
    cells = [
        (r.wire, r.operator, r.module, str(r.axis), r.stride, f"{r.delay:g}", _saw(r)) for r in rows
    ]
    click.echo(render(header, cells))


def _saw(row: Row) -> str:
    first = "all" if row.first is None else f"{row.first:+g}"
    return f"{first} to {row.last:+g}"


def _kind(contract: Contract) -> str:
    return "streaming" if contract.streaming else "offline: it takes whole sequences"


def _facts(contract: Contract, step: Step | None) -> Iterator[tuple[str, str]]:
    for port in contract.inputs:
        ids = "" if port.num_embeddings is None else f", ids 0 to {port.num_embeddings - 1}"
        yield "input", f"{port}{ids}"
    for port in contract.outputs:
        yield "output", ", ".join([str(port), *_timing(port)])
    if contract.states:
        size = human_bytes(_state_bytes(contract))
        yield "states", f"{len(contract.states)}, {size} for each sequence"
    for state in contract.states:
        yield "", _described(state)
    if contract.streaming:
        yield "delay", delay_text(contract)
        yield "chunks", _chunks(contract)
    if contract.sample_rate is not None:
        yield "sample rate", f"{contract.sample_rate:g} frames a second"
    if contract.labels is not None:
        yield "labels", ", ".join(contract.labels)
    yield "operators", ", ".join(f"{n} {name}" for name, n in _by_count(contract.operators))
    if step is not None:
        frames = "a frame" if step.frames == 1 else f"{step.frames} frames"
        yield "step form", f"{step.operators} operators for {frames} of one sequence"
    yield "source", _listed(contract.source) or "unknown"
    yield "quantized", _listed(contract.quantization) or "no"
    yield "checked", _listed(contract.checked) or "no: run `rnnx check`"


def _timing(port: Port) -> Iterator[str]:
    """How the frames of an output come, where that is not one for each input frame at once."""
    if port.stride != 1:
        yield f"one every {port.stride} input frames"
    if port.delay:
        yield f"{port.delay} frames late"
    if port.lookahead > 0:
        yield f"sees {port.lookahead} frames ahead"
    if port.receptive_field is not None and port.receptive_field > 1:
        yield f"{port.receptive_field} in all"


def _chunks(contract: Contract) -> str:
    if contract.chunk is not None:
        return f"every call takes {contract.chunk} frames"
    if (contract.first_chunk, contract.chunk_multiple) == (1, 1):
        return "any number of frames"
    first, multiple = contract.first_chunk, contract.chunk_multiple
    return f"any number of frames; run are {first} at first, then multiples of {multiple}"


def _described(state: State) -> str:
    dims = ", ".join(map(str, state.dims))
    owner = f", {state.module} layer {state.layer}" if state.module else ""
    start = "" if state.initial is None else ", starts from learned values"
    return f"{state.name}: {state.dtype}[{dims}], {state.kind}{owner}{start}"


def _by_count(operators: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(operators.items(), key=lambda item: (-item[1], item[0]))


def _listed(record: Mapping[str, Any] | None) -> str:
    """One line; lists, which are for programs, are left to --json."""
    told = {key: value for key, value in (record or {}).items() if not isinstance(value, list)}
    return "; ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in told.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _state_bytes(contract: Contract) -> int:
    import numpy as np

    return sum(
        math.prod(state.shape(batch=1)) * np.dtype(state.dtype).itemsize
        for state in contract.states
    )

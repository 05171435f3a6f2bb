"""JSON lines as blocks of frames: one object a frame, its keys the inputs' names."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.layout import cast, frame_shape, value_range
from rnnx.lines import opened_lines
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]


def json_blocks(
    path: str, ports: Sequence[Port], chunk: int, start: int = 0
) -> Iterator[dict[str, Array]]:
    """Blocks `[frames, ...]` of at most `chunk` frames, by input name, from frame `start` on.

    A line is an object that holds for each input one frame, as nested lists or flat; null is NaN.
    A value without a time axis may be left out where it stays as it was. Other keys are left
    alone. `-` is stdin.

    Raises:
        InputError: a line is no such object, or a value does not fit its input.
    """
    with opened_lines(path) as lines:
        rows = islice(_rows(lines, "stdin" if path == "-" else path, ports), start, None)
        while block := list(islice(rows, chunk)):
            yield {port.name: np.stack([row[port.name] for row in block]) for port in ports}


def _rows(lines: Iterator[str], source: str, ports: Sequence[Port]) -> Iterator[dict[str, Array]]:
    kept: dict[str, Array] = {}  # values without a time axis
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{source}, line {number}"
        given = kept | _object(line, where)
        row = {port.name: _frame(port, given, where) for port in ports}
        kept = {port.name: row[port.name] for port in ports if port.time_axis is None}
        yield row


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON, {error}") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{where}: not an object", hint='Give one for each frame: {"x": [0.5, -1]}'
        )
    return value


def _frame(port: Port, given: dict[str, Any], where: str) -> Array:
    shape = frame_shape(port)
    if port.name not in given:
        raise InputError(f"{where}: no {port.name!r}, but the artifact takes {port}")
    array = _numbers(port, given[port.name], where)
    nested = array.ndim > 1
    if array.size != math.prod(shape) or (nested and array.shape != shape):
        raise InputError(
            f"{where}: {port.name!r} has shape {list(array.shape)}, but a frame of input {port}"
            f" has shape {list(shape)}"
        )
    return cast(port, array.reshape(shape), where)


def _numbers(port: Port, value: Any, where: str) -> Array:
    low, high = value_range(port)
    try:
        array = np.asarray(value)
        if array.dtype == object and np.dtype(port.dtype).kind == "f":
            array = array.astype(np.float64)  # null is NaN
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {port.name!r} is no array of numbers: {error}") from error
    if array.dtype.kind not in "biuf" or not _within(array, low, high):
        raise InputError(
            f"{where}: {port.name!r} is {value!s:.60}, but input {port} takes numbers from"
            f" {low:g} to {high:g}"
        )
    return array


def _within(array: Array, low: float, high: float) -> bool:
    return bool((((low <= array) & (array <= high)) | ~np.isfinite(array)).all())

"""CSV as blocks of frames: one row a frame, read line by line, so that stdin may be live."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rnnx.layout import columns, frame_shape, value_range
from rnnx.lines import opened_lines
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError

Block = dict[str, npt.NDArray[Any]]
_Parse = Callable[[str], float]
_Row = list[list[float]]


class _Pick(NamedTuple):
    """Where the values of each input stand in a row of so many cells, and what reads them."""

    width: int
    places: list[Sequence[int]]
    parsers: list[_Parse]


def csv_blocks(path: str, ports: Sequence[Port], chunk: int, start: int = 0) -> Iterator[Block]:
    """Blocks `[frames, ...]` of at most `chunk` frames, by input name, from frame `start` on.

    A first row without any number is a header. If it names the values of all inputs (`x0`, `x1`,
    ..., or `x` for a single one) they are taken from those columns, and other columns are left
    alone; else a row holds the values of the only input in their order. `-` is stdin.

    Raises:
        InputError: a row has another number of columns, or a cell is no number that fits.
    """
    with opened_lines(path) as lines:
        rows = islice(_rows(csv.reader(lines), path, ports), start, None)
        while block := list(islice(rows, chunk)):
            yield {
                port.name: np.array(values, port.dtype).reshape(-1, *frame_shape(port))
                for port, values in zip(ports, zip(*block, strict=True), strict=True)
            }


def _rows(reader: Any, path: str, ports: Sequence[Port]) -> Iterator[_Row]:
    source = "stdin" if path == "-" else path
    filled = _filled(reader, source)
    first = next(filled, None)
    if first is None:
        return
    headed = not any(map(_is_number, first))
    pick = _pick(first if headed else [], ports, source)
    for number, cells in enumerate(chain([first], filled)):
        where = f"{source}, line {reader.line_num}"
        _refuse_width(cells, pick, ports, where)
        if number > 0 or not headed:
            yield _row(cells, pick, where)


def _filled(reader: Any, source: str) -> Iterator[list[str]]:
    try:
        yield from filter(None, reader)  # an empty line is no frame
    except csv.Error as error:
        raise InputError(f"{source}, line {reader.line_num}: not CSV, {error}") from error


def _pick(header: list[str], ports: Sequence[Port], source: str) -> _Pick:
    parsers = [_cell_parser(port) for port in ports]
    place = {name.strip(): index for index, name in enumerate(header)}
    named: list[Sequence[int]] = [_places(port, place) for port in ports]
    if all(named):
        return _Pick(len(header), named, parsers)
    if len(ports) > 1:
        wanted = ", ".join(name for port in ports for name in columns(port))
        raise InputError(
            f"{source}: a row must hold the values of {len(ports)} inputs, and no header tells"
            " which is which",
            hint=f"Give a first line that names the columns: {wanted}",
        )
    width = math.prod(frame_shape(ports[0]))
    return _Pick(width, [range(width)], parsers)


def _places(port: Port, place: dict[str, int]) -> Sequence[int]:
    """The columns of the port's values; none where one is not named."""
    names = columns(port)
    if len(names) == 1 and port.name in place:
        names = [port.name]
    return [place[name] for name in names] if all(name in place for name in names) else []


def _refuse_width(cells: list[str], pick: _Pick, ports: Sequence[Port], where: str) -> None:
    if len(cells) == pick.width:
        return
    expected = f"input {ports[0]} takes {pick.width} a frame"
    if len(ports) > 1 or not isinstance(pick.places[0], range):
        expected = f"the header names {pick.width}"
    raise InputError(
        f"{where}: {len(cells)} columns, but {expected}",
        hint="Give one line for each frame, its numbers separated by commas.",
    )


def _row(cells: list[str], pick: _Pick, where: str) -> _Row:
    return [
        [_value(cells, place, parse, where) for place in places]
        for places, parse in zip(pick.places, pick.parsers, strict=True)
    ]


def _value(cells: list[str], place: int, parse: _Parse, where: str) -> float:
    try:
        return parse(cells[place])
    except ValueError as error:
        raise InputError(f"{where}, column {place + 1}: {cells[place]!r} {error}") from error


def _cell_parser(port: Port) -> _Parse:
    """A function from text to a number that the input takes; it raises ValueError."""
    is_float = np.dtype(port.dtype).kind == "f"
    number, what = (float, "a number") if is_float else (int, "an integer")
    low, high = value_range(port)

    def parse(cell: str) -> float:
        try:
            value: float = number(cell)
        except ValueError:
            raise ValueError(f"is not {what}") from None
        if low <= value <= high or (is_float and not math.isfinite(value)):
            return value
        raise ValueError(f"is out of the range {low:g} to {high:g} of input {port.name}")

    return parse


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

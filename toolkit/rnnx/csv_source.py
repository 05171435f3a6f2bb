"""CSV as blocks of frames: one row a frame, read line by line, so that stdin may be live."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from rnnx.layout import frame_shape
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError


def csv_blocks(path: str, port: Port, chunk: int) -> Iterator[npt.NDArray[Any]]:
    """Blocks `[frames, ...]` of at most `chunk` frames for `port`, in its dtype.

    A first row without any number is a header. `-` is stdin.

    Raises:
        InputError: a row has another number of columns, or a cell is no number that fits.
    """
    # Bytes that are not UTF-8 become signs that are no number, and are reported as such.
    with click.open_file(path, encoding="utf-8-sig", errors="replace") as lines:
        rows = _rows(csv.reader(lines), path, port)
        while block := list(islice(rows, chunk)):
            yield np.array(block, port.dtype).reshape(-1, *frame_shape(port))


def count_lines(path: str) -> int | None:
    """The number of lines; None for stdin and pipes, which can be read only once."""
    if not Path(path).is_file():
        return None
    with open(path, "rb") as lines:
        return sum(1 for _ in lines)


def _rows(reader: Any, path: str, port: Port) -> Iterator[list[float]]:
    width = math.prod(frame_shape(port))
    parse = _cell_parser(port)
    source = "stdin" if path == "-" else path
    for number, cells in enumerate(_filled(reader, source)):
        where = f"{source}, line {reader.line_num}"
        if len(cells) != width:
            raise InputError(
                f"{where}: {len(cells)} columns, but input {port} takes {width} a frame",
                hint="Give one line for each frame, its numbers separated by commas.",
            )
        if number > 0 or any(map(_is_number, cells)):
            yield _row(cells, parse, where)


def _filled(reader: Any, source: str) -> Iterator[list[str]]:
    try:
        yield from filter(None, reader)  # an empty line is no frame
    except csv.Error as error:
        raise InputError(f"{source}, line {reader.line_num}: not CSV, {error}") from error


def _row(cells: list[str], parse: Callable[[str], float], where: str) -> list[float]:
    row = []
    for column, cell in enumerate(cells, start=1):
        try:
            row.append(parse(cell))
        except ValueError as error:
            raise InputError(f"{where}, column {column}: {cell!r} {error}") from error
    return row


def _cell_parser(port: Port) -> Callable[[str], float]:
    """A function from text to a number that the input takes; it raises ValueError."""
    is_float = np.dtype(port.dtype).kind == "f"
    number, what = (float, "a number") if is_float else (int, "an integer")
    low, high = _range(port)

    def parse(cell: str) -> float:
        try:
            value: float = number(cell)
        except ValueError:
            raise ValueError(f"is not {what}") from None
        if low <= value <= high or (is_float and not math.isfinite(value)):
            return value
        raise ValueError(f"is out of the range {low:g} to {high:g} of input {port.name}")

    return parse


def _range(port: Port) -> tuple[float, float]:
    dtype = np.dtype(port.dtype)
    if dtype.kind == "f":
        info = np.finfo(dtype)
        high = float(info.max) * (1 + float(info.eps) / 4)  # half a step above still rounds down
        return -high, high
    if dtype.kind == "b" or port.num_embeddings is not None:
        return 0, (port.num_embeddings or 2) - 1
    return np.iinfo(dtype).min, np.iinfo(dtype).max


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True

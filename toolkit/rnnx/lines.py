"""Lines of text, from a file, or from stdin or a pipe as they come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from rnnx.interrupts import until_interrupted


@contextmanager
def opened_lines(path: str) -> Iterator[Iterator[str]]:
    """The lines of `path`, where `-` is stdin; what can be read only once ends with Ctrl-C too."""
    # Bytes that are not UTF-8 become signs that are no number, and are reported as such.
    with click.open_file(path, encoding="utf-8-sig", errors="replace") as lines:
        yield iter(lines) if Path(path).is_file() else until_interrupted(iter(lines))


def count_lines(path: str) -> int | None:
    """The number of lines; None for stdin and pipes, which can be read only once."""
    if not Path(path).is_file():
        return None
    with open(path, "rb") as lines:
        return sum(1 for _ in lines)

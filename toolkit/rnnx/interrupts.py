"""Ctrl-C as the end of a live sequence."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")


def until_interrupted(chunks: Iterator[_T]) -> Iterator[_T]:
    """The chunks until the first SIGINT, which ends the wait for one but not the work on one."""
    waiting = asked = False

    def note(*_: Any) -> None:
        nonlocal asked
        if waiting or asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, note)
    try:
        while not asked:
            waiting = True
            chunk = _next_or_none(chunks)
            waiting = False
            if chunk is None:
                return
            yield chunk
    finally:
        signal.signal(signal.SIGINT, before)


def _next_or_none(chunks: Iterator[_T]) -> _T | None:
    try:
        return next(chunks, None)
    except KeyboardInterrupt:
        return None

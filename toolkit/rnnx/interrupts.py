"""Ctrl-C as the end of a live sequence."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any, TypeVar

_T = TypeVar("_T")


def until_interrupted(items: Iterator[_T]) -> Iterator[_T]:
    """What comes until the first SIGINT, which ends the wait for more but not the work on it."""
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
            item = _next_or_none(items)
            waiting = False
            if item is None:
                return
            yield item
    finally:
        signal.signal(signal.SIGINT, before)


def _next_or_none(items: Iterator[_T]) -> _T | None:
    try:
        return next(items, None)
    except KeyboardInterrupt:
        return None

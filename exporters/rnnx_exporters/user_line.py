"""Which line of a traceback is the user's own: neither torch's nor ours."""

from __future__ import annotations

import importlib.util
import os
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_STDLIB = str(Path(os.__file__).parent)


def user_line(stack: Sequence[traceback.FrameSummary]) -> str | None:
    """The innermost frame that is neither torch's nor ours."""
    for frame in reversed(stack):
        if not is_library(frame.filename):
            return f"{frame.filename}:{frame.lineno}: {frame.line}"
    return None


def is_library(file: str) -> bool:
    """Whether the file is Python's, torch's or ours."""
    is_stdlib = file.startswith(_STDLIB) and "site-packages" not in file
    return is_stdlib or file.startswith(_not_the_users())


@cache
def _not_the_users() -> tuple[str, ...]:
    torch = importlib.util.find_spec("torch")  # found, not imported
    homes = [Path(torch.origin).parent] if torch is not None and torch.origin else []
    return (*(str(home) for home in (*homes, Path(__file__).parent)), "<")

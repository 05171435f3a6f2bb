"""Measures starts: fresh processes that import, open an artifact and make its first call."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

from rnnx_runtime.errors import InputError

_PROCESSES = 9


@dataclass(frozen=True, slots=True)
class Start:
    """What starting takes: the median of a few fresh processes, each past Python's own start.

    Attributes:
        imports: milliseconds to import rnnx_runtime, numpy and onnxruntime with it.
        opening: milliseconds to open the artifact.
        first_call: milliseconds until the first call that runs the network is done.
        memory: bytes that opening and calls added at most to what the imports took.
    """

    imports: float
    opening: float
    first_call: float
    memory: float


def starts(paths: Sequence[str], *, chunk: int, batch: int) -> list[Start]:
    """Start each artifact a few times, in turn, in processes of their own.

    Args:
        paths: the artifacts.
        chunk: frames in a call.
        batch: sequences in a call.

    Raises:
        InputError: a process failed.
    """
    turns = [[_start(path, chunk, batch) for path in paths] for _ in range(_PROCESSES)]
    return [_median(found) for found in zip(*turns, strict=True)]


def _start(path: str, chunk: int, batch: int) -> Start:
    # -P: files in the current folder are no modules of ours.
    command = [sys.executable, "-P", "-m", "rnnx.start_probe", path, str(chunk), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise InputError(f"a process that starts {path!r} failed: {lines[-1] if lines else ''}")
    return Start(**json.loads(done.stdout))


def _median(found: Sequence[Start]) -> Start:
    return Start(
        **{f.name: statistics.median(getattr(s, f.name) for s in found) for f in fields(Start)}
    )

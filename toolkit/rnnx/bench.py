"""Measures calls against each other: in one process, in turn, warm-up left out."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

# Calls of one variant before the next has its turn: enough that each runs with warm caches.
_ROUND = 20
_CACHES = 64 << 20  # bytes, more than a core's caches hold


@dataclass(frozen=True, slots=True)
class Timing:
    """What one variant's calls took.

    Attributes:
        calls: how many calls were timed.
        median, p95, p99: microseconds a call took, in half, 95 % and 99 % of all calls at most.
        ratio: this variant's time over the first variant's: the median of the rounds' ratios, in
            which both ran one right after the other, so that a busy machine slows both.
    """

    calls: int
    median: float
    p95: float
    p99: float
    ratio: float


def measure(
    runs: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 1.0,
    warmup: int = 20,
    before: Callable[[], object] = lambda: None,
) -> dict[str, Timing]:
    """Time the variants in turn, round after round, in the order given and then the reverse.

    Args:
        runs: the variants by name, each one call.
        seconds: time to spend on each variant; at least two rounds are run.
        warmup: calls of each variant before the first that counts.
        before: called before each call, and not timed.

    Returns:
        The timings by name, in the order of `runs`.
    """
    for run in runs.values():
        _time(run, warmup, before)
    rounds: dict[str, list[list[int]]] = {name: [] for name in runs}
    order = list(runs)
    end = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < end or len(rounds[order[0]]) < 2:
        for name in order:
            rounds[name].append(_time(runs[name], _ROUND, before))
        order.reverse()
    first = rounds[next(iter(runs))]
    return {name: _timing(taken, first) for name, taken in rounds.items()}


def cold_caches() -> Callable[[], object]:
    """A call that fills the caches with something else, as what a device does between two steps."""
    return np.ones(_CACHES // 8, np.int64).sum


@contextmanager
def one_core() -> Iterator[None]:
    """Stay on one core inside, where the system allows it; processes started inside do too."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})  # the first core serves the system most
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _time(run: Callable[[], object], calls: int, before: Callable[[], object]) -> list[int]:
    clock = time.perf_counter_ns
    taken = []
    for _ in range(calls):
        before()
        start = clock()
        run()
        taken.append(clock() - start)
    return taken


def _timing(rounds: list[list[int]], first: list[list[int]]) -> Timing:
    calls = np.concatenate(rounds) / 1000
    p50, p95, p99 = np.percentile(calls, [50, 95, 99])
    pairs = zip(rounds, first, strict=True)
    ratio = statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs)
    return Timing(len(calls), float(p50), float(p95), float(p99), ratio)

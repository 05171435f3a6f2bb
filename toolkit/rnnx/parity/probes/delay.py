"""Every output comes when the contract says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from rnnx.parity.probes import causality
from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial
from rnnx_runtime.chunks import cut
from rnnx_runtime.contract import Port

CALLS = 12


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    return causality.unfit(trial)


def probe(trial: Trial) -> Iterator[Finding]:
    """Feed the shortest calls: no frame may come later than its output's delay, some not earlier.

    An output that would be ahead of its input has a delay of 0 and may come earlier.
    """
    come = _come(trial)
    for port in trial.contract.outputs:
        if port.time_axis is not None:
            reason = _untimely(port, come[port.name], trial.contract.chunk_multiple)
            run = {"calls": CALLS, "frames": come[port.name][-1][0]}
            yield trial.verdict("delay", port.name, run, reason)


def _untimely(port: Port, come: list[tuple[int, int]], call: int) -> str | None:
    """Why the output comes at another time; earlier is seen by whole calls of so many frames."""
    if any(count < due(port, fed, port.delay) for fed, count in come):
        return f"its frames come later than its delay of {port.delay} frames"
    sooner = port.delay - call
    if port.delay and all(count >= due(port, fed, sooner) for fed, count in come):
        return f"its frames come before its delay of {port.delay} frames"
    return None


def due(port: Port, fed: int, delay: int) -> int:
    """How many frames of an output are due after so many input frames.

    The input frames that an output frame stands for must be over, and the delay after them.
    """
    own = max(1, math.ceil(port.stride))
    over = (math.floor(frame * port.stride) + own + delay for frame in itertools.count())
    return next(count for count, end in enumerate(over) if end > fed)


def _come(trial: Trial) -> dict[str, list[tuple[int, int]]]:
    """For each output how many frames had come after so many input frames, call after call."""
    contract = trial.contract
    (batch,) = trial.batches(1)
    ends = [contract.first_chunk + call * contract.chunk_multiple for call in range(CALLS)]
    feeds = trial.inputs(trial.rng("delay"), batch=batch, frames=ends[-1])
    stream = trial.artifact.stream(batch=batch)
    come: dict[str, list[tuple[int, int]]] = {}
    for start, end in itertools.pairwise([0, *ends]):
        outputs = trial.feed(stream, cut(contract.inputs, feeds, start, end))
        for port in contract.outputs:
            before = come.setdefault(port.name, [(0, 0)])[-1][1]
            axis = port.time_axis or 0
            come[port.name].append((end, before + outputs[port.name].shape[axis]))
    return come

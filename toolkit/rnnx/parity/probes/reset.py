"""A stream that is reset begins anew; one that is not goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from rnnx.parity.report import Finding
from rnnx.parity.trial import Arrays, Expected, Trial
from rnnx_runtime import Stream

FRAMES = 12
NOTHING = Expected({}, {})


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    if not trial.contract.streaming:
        return "the artifact takes whole sequences"
    return None if trial.contract.states else "the artifact has no state"


def probe(trial: Trial) -> Iterator[Finding]:
    """Stream A, reset, stream B: B must be as in a new stream. Without the reset it must not."""
    (batch,) = trial.batches(max(2, trial.batch))
    rng, frames = trial.rng("reset"), FRAMES * trial.contract.first_chunk
    first, second = (trial.inputs(rng, batch=batch, frames=frames) for _ in range(2))
    run = {"batch": batch, "frames": frames, "chunk": trial.chunk}
    fresh = _run(trial, second, trial.artifact.stream(batch=batch))
    stream = trial.artifact.stream(batch=batch)
    for flushed in (0, 1):
        _ = _run(trial, first, stream) if flushed else trial.feed(stream, first)
        stream.reset()
        again = _run(trial, second, stream)
        stream.reset()
        yield from trial.same("reset", again, fresh, NOTHING, run | {"flushed": flushed})
    trial.feed(stream, first)
    alive = differ(_run(trial, second, stream), fresh) or is_dead(trial, second, batch)
    reason = None if alive else "what came before changes nothing: its states are dead"
    yield trial.verdict("reset", trial.contract.outputs[0].name, run, reason)


def differ(one: Arrays, other: Arrays) -> bool:
    """Whether any value differs."""
    return not all(
        value.shape == other[name].shape and np.array_equal(value, other[name], equal_nan=True)
        for name, value in one.items()
    )


def is_dead(trial: Trial, feeds: Arrays, batch: int) -> bool:
    """Whether torch's own states change nothing."""
    states = trial.states(trial.rng("dead"), batch=batch)
    if states is None:
        return False
    zeros = {name: np.zeros_like(value) for name, value in states.items()}
    (one, _), (other, _) = (trial.reference.run(feeds, start) for start in (states, zeros))
    return not differ(one, other)


def _run(trial: Trial, feeds: Arrays, stream: Stream) -> Arrays:
    return trial.stream(feeds, itertools.repeat(trial.chunk), stream=stream)

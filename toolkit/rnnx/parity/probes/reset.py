"""A stream that is reset begins anew; one that is not goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rnnx.parity.report import Finding
from rnnx.parity.trial import NOTHING, Arrays, Trial, differ
from rnnx_runtime import Stream
from rnnx_runtime.chunks import in_a_row

FRAMES = 12


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
    moved = differ(_run(trial, second, stream), fresh)
    reason = (
        None
        if moved or not _remembers(trial, first, second)
        else "what came before changes nothing: its states are dead"
    )
    yield trial.verdict("reset", trial.contract.outputs[0].name, run, reason)


def _remembers(trial: Trial, first: Arrays, second: Arrays) -> bool:
    """Whether torch gives something else for B after A; where that cannot be told, it should."""
    if not trial.reference.has_all_states:
        return True
    both = in_a_row(trial.contract.inputs, [first, second])
    (whole, _), (alone, _) = (trial.reference.run(feeds) for feeds in (both, second))
    tails = {
        name: whole[name][tuple(slice(-size, None) for size in value.shape)]
        for name, value in alone.items()
    }
    return differ(alone, tails)


def _run(trial: Trial, feeds: Arrays, stream: Stream) -> Arrays:
    return trial.stream(feeds, itertools.repeat(trial.chunk), stream=stream)

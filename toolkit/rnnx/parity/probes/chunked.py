"""Through the real runner, in chunks, against the whole sequence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial

# One frame, a prime, and more than half: each leaves a ragged tail of 31 frames.
CHUNKS = (1, 7, 17)
FRAMES = 31


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    return None if trial.contract.streaming else "the artifact takes whole sequences"


def probe(trial: Trial) -> Iterator[Finding]:
    """Stream in chunks of each length; outputs and final states must be the reference's.

    The reference starts from its own states, the stream from those that the contract holds.
    """
    (batch,) = trial.batches(max(2, trial.batch))
    frames = FRAMES * trial.contract.first_chunk
    feeds = trial.inputs(trial.rng("chunked"), batch=batch, frames=frames)
    expected = trial.expected(feeds)
    for chunk in dict.fromkeys((*CHUNKS, trial.chunk)):
        actual = trial.stream(feeds, itertools.repeat(chunk), batch=batch)
        run = {"batch": batch, "frames": frames, "chunk": chunk}
        yield from trial.judge("chunked", actual, expected, run)

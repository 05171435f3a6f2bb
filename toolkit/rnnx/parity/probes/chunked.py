"""Through the real runner, in chunks, against the whole sequence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial
from rnnx_runtime.errors import InputError
from rnnx_runtime.stream import feed_whole

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
    contract = trial.contract
    (batch,) = trial.batches(max(2, trial.batch))
    frames = FRAMES * contract.first_chunk
    feeds = trial.inputs(trial.rng("chunked"), batch=batch, frames=frames)
    expected = trial.expected(feeds)
    for chunk in dict.fromkeys((*CHUNKS, trial.chunk)):
        run = {"batch": batch, "frames": frames, "chunk": chunk}
        stream = trial.artifact.stream(batch=batch)
        try:
            outputs = feed_whole(stream, feeds, itertools.repeat(chunk))
        except InputError as error:  # its outputs are not of its contract's shapes, say
            yield trial.verdict("chunked", contract.outputs[0].name, run, str(error))
            continue
        # Where the end takes a run of its own, it goes over frames behind the sequence.
        states = {} if contract.lags else trial.reference.comparable(stream.states())
        yield from trial.judge("chunked", outputs | states, expected, run)

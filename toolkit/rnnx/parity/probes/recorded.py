"""The user's own sequences: whole, and as they are streamed on the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    return None if trial.recordings else "no inputs were given"


def probe(trial: Trial) -> Iterator[Finding]:
    """Each recording from the start states: in one run, and in chunks as deployed."""
    for number, recording in enumerate(trial.recordings):
        run = {"recording": number, "batch": recording.batch, "frames": recording.frames}
        feeds, expected = recording.inputs, trial.expected(recording.inputs)
        yield from trial.judge("recorded", trial.run(feeds), expected, run)
        if trial.contract.streaming:
            chunks = itertools.repeat(trial.chunk)
            actual = trial.stream(feeds, chunks, batch=recording.batch)
            yield from trial.judge("recorded", actual, expected, run | {"chunk": trial.chunk})

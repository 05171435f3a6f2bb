"""The user's own sequences: whole, and as they are streamed on the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial
from rnnx_runtime.model import named
from rnnx_runtime.stream import feed_whole


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    return None if trial.recordings else "no inputs were given"


def probe(trial: Trial) -> Iterator[Finding]:
    """Each recording from the start states: in one run, and in chunks as deployed."""
    for number, recording in enumerate(trial.recordings):
        run = {"recording": number, "batch": recording.batch, "frames": recording.frames}
        expected = trial.expected(recording.inputs)
        whole = named(trial.contract, trial.artifact.run(recording.inputs))
        yield from trial.judge("recorded", whole, expected, run)
        if trial.contract.streaming:
            stream = trial.artifact.stream(batch=recording.batch)
            outputs = feed_whole(stream, recording.inputs, itertools.repeat(trial.chunk))
            yield from trial.judge("recorded", outputs, expected, run | {"chunk": trial.chunk})

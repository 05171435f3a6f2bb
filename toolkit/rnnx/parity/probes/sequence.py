"""Whole sequences from random states: every output and every state."""

from __future__ import annotations

from collections.abc import Iterator

from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial

# Batch and frames of each run: one of each alone, and lengths that share no factor.
SIZES = ((2, 16), (1, 1), (3, 23))


def probe(trial: Trial) -> Iterator[Finding]:
    """Run artifact and reference once for each of the sizes.

    Where the network needs many frames for one, so many times more are given. An artifact that
    remembers more than torch's layers do begins as it does on the device.
    """
    rng = trial.rng("sequence")
    sizes = {(trial.batches(batch)[0], frames): None for batch, frames in SIZES}
    for batch, few in sizes:
        frames = few * trial.contract.first_chunk
        feeds = trial.inputs(rng, batch=batch, frames=frames)
        states = trial.states(rng, batch=batch)
        actual, expected = trial.run(feeds, states), trial.expected(feeds, states)
        yield from trial.judge("sequence", actual, expected, {"batch": batch, "frames": frames})

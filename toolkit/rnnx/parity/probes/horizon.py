"""Drift: thousands of frames through the real runner, at steps ten times as far each time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from fractions import Fraction

from rnnx.parity.report import Finding
from rnnx.parity.trial import Array, Arrays, Expected, Trial

STEPS = 10_000
LEAST_STEPS = 100
POINTS = (10, 100, 1_000)
# Multiplications with weights that the probe may cost in each of torch's two runs: large networks
# are given fewer steps.
WORK = 20_000_000_000
# Of the input: a strided network takes many for each step.
MOST_FRAMES = 400_000
# A whole sequence may hold operators whose work grows with the square of its length.
OFFLINE_STEPS = 1_000


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    timed = [port for port in trial.contract.inputs if port.time_axis is not None]
    return None if timed else "the artifact takes a fixed number of frames"


def probe(trial: Trial) -> Iterator[Finding]:
    """One sequence of thousands of steps: every output up to the 10th, the 100th, ..., the last.

    An artifact that streams is fed in the chunks of its deployment.
    """
    contract, steps = trial.contract, steps_of(trial)
    frames = contract.first_chunk + (steps - 1) * contract.chunk_multiple
    (batch,) = trial.batches(1)
    feeds = trial.inputs(trial.rng("horizon"), batch=batch, frames=frames)
    if contract.streaming:
        actual = trial.stream(feeds, itertools.repeat(trial.chunk), batch=batch)
    else:
        actual = trial.run(feeds)
    expected = trial.expected(feeds)
    for point in (*(early for early in POINTS if early < steps), steps):
        share = Fraction(point, steps)
        wanted = Expected(
            _first(trial, expected.values, share), _first(trial, expected.exact, share)
        )
        run = {"steps": point, "frames": frames}
        yield from trial.judge("horizon", _first(trial, actual, share), wanted, run)
    rest = {name: actual[name] for name in actual if name not in _timed(trial)}
    yield from trial.judge("horizon", rest, expected, {"steps": steps, "frames": frames})


def steps_of(trial: Trial) -> int:
    """As many as the network's size and strides allow, at most 10,000."""
    most = STEPS if trial.contract.streaming else OFFLINE_STEPS
    bounds = (WORK // max(1, trial.reference.weights), MOST_FRAMES // trial.contract.chunk_multiple)
    return min(most, max(LEAST_STEPS, min(bounds)))


def _first(trial: Trial, values: Arrays, share: Fraction) -> Arrays:
    """The first frames of the outputs that have frames, so great a share of them."""
    timed = _timed(trial)
    return {name: _cut(values[name], timed[name], share) for name in values if name in timed}


def _timed(trial: Trial) -> dict[str, int]:
    return {p.name: p.time_axis for p in trial.contract.outputs if p.time_axis is not None}


def _cut(value: Array, axis: int, share: Fraction) -> Array:
    return value[(slice(None),) * axis + (slice(math.ceil(value.shape[axis] * share)),)]

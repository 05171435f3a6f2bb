"""The same call twice, and on several threads."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial, differ
from rnnx_runtime import Model
from rnnx_runtime.session import open_session

BATCH = 3
FRAMES = 16
THREADS = 2


def probe(trial: Trial) -> Iterator[Finding]:
    """A second call must give the same bits; on more threads the same within the tolerance."""
    contract, rng = trial.contract, trial.rng("determinism")
    (batch,) = trial.batches(max(BATCH, trial.batch))
    frames = FRAMES * contract.first_chunk
    feeds, states = trial.inputs(rng, batch=batch, frames=frames), trial.states(rng, batch=batch)
    once, twice = trial.run(feeds, states), trial.run(feeds, states)
    run = {"batch": batch, "frames": frames}
    reason = "a second call gives other values" if differ(once, twice) else None
    yield trial.verdict("determinism", contract.outputs[0].name, run, reason)
    several = _with_threads(trial).run(feeds, states)
    expected = trial.expected(feeds, states)
    yield from trial.same("determinism", several, once, expected, run | {"threads": THREADS})


def _with_threads(trial: Trial) -> Trial:
    """The trial of the same artifact in a session of several threads."""
    twin = copy.copy(trial)
    twin.artifact = Model(trial.artifact.path)
    twin.artifact.session = open_session(trial.artifact.path, threads=THREADS)
    return twin

"""Each sequence of a batch against the same sequence alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rnnx.parity.report import Finding
from rnnx.parity.trial import Arrays, Trial, row
from rnnx_exporters.compare import compare

ROWS = 5
FRAMES = 16


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    return None if trial.contract.has_free_batch else "the artifact takes one sequence"


def probe(trial: Trial) -> Iterator[Finding]:
    """Run a batch, and each of its sequences alone, from the same states: they must be equal.

    A network that mixes the sequences of a batch in torch as well is not held to this.
    """
    rng, rows = trial.rng("batch"), max(ROWS, trial.batch)
    frames = FRAMES * trial.contract.first_chunk
    feeds = full(trial, trial.inputs(rng, batch=rows, frames=frames), frames)
    states = trial.states(rng, batch=rows)
    expected, together = trial.expected(feeds, states), trial.run(feeds, states)
    if _mixes(trial, feeds, states, expected.values):
        trial.note("batch: the torch model itself mixes the sequences of a batch")
        return
    for index in range(rows):
        own = None if states is None else row(trial.contract, states, index)
        alone = trial.run(row(trial.contract, feeds, index), own)
        run = {"batch": rows, "frames": frames, "row": index}
        inside = row(trial.contract, together, index)
        yield from trial.same("batch", inside, alone, expected.row(trial.contract, index), run)


def full(trial: Trial, feeds: Arrays, frames: int) -> Arrays:
    """The inputs with every sequence as long as the batch."""
    counted = [port.name for port in trial.contract.inputs if port.counts_frames]
    return feeds | {name: np.full_like(feeds[name], frames) for name in counted}


def _mixes(trial: Trial, feeds: Arrays, states: Arrays | None, together: Arrays) -> bool:
    """Whether torch's first sequence is another alone than in the batch."""
    contract = trial.contract
    own = None if states is None else row(contract, states, 0)
    outputs, _ = trial.reference.run(row(contract, feeds, 0), own)
    inside = row(contract, together, 0)
    return not all(compare(inside[name], value).passed for name, value in outputs.items())

"""A loud sequence and a loud frame: how far the others of the same call move."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from rnnx.parity.probes.causality import unreached
from rnnx.parity.report import Finding
from rnnx.parity.trial import NOTHING, Arrays, Trial, row
from rnnx_runtime.chunks import cut, frames_of

TIMES = 10
BEFORE = 12
CHUNK = 8


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    contract = trial.contract
    if not any(np.dtype(port.dtype).kind == "f" for port in contract.inputs):
        return "no input can be loud"
    if trial.rounds_by_range and _batch(trial) == 1 and _chunk(trial) <= contract.chunk_multiple:
        return "a call holds one step of one sequence as deployed (see batch and chunk)"
    return None


def probe(trial: Trial) -> Iterator[Finding]:
    """The last call of a few; in it, the first sequence or the last frame is ten times as loud.

    Where a call's activations are rounded by their range, the call is as deployed and its quality
    is judged; elsewhere nothing may move.
    """
    rng, batch, chunk = trial.rng("loud"), _batch(trial), _chunk(trial)
    before = chunk * math.ceil(BEFORE * trial.contract.first_chunk / chunk)
    feeds = trial.inputs(rng, batch=batch, frames=before + chunk)
    quiet, emitted = _last_call(trial, feeds, before)
    if batch > 1:
        other, _ = _last_call(trial, _loud_row(trial, feeds), before)
        yield from _hold_rows(trial, other, quiet, before + chunk)
    if trial.contract.streaming:
        at = before + chunk - 1
        other, _ = _last_call(trial, _loud_from(trial, feeds, at), before)
        yield from _hold_frames(trial, other, quiet, at, emitted)


def _batch(trial: Trial) -> int:
    (batch,) = trial.batches(trial.batch if trial.rounds_by_range else max(2, trial.batch))
    return batch


def _chunk(trial: Trial) -> int:
    """Frames of a call; one long enough that frames stand beside each other, where that is free."""
    free = not trial.rounds_by_range and trial.contract.chunk is None
    return max(trial.chunk, CHUNK * trial.contract.chunk_multiple) if free else trial.chunk


def _last_call(trial: Trial, feeds: Arrays, before: int) -> tuple[Arrays, Arrays]:
    """What the last call gives, and what came before it."""
    contract = trial.contract
    if not contract.streaming:
        return trial.run(feeds), {}
    stream = trial.artifact.stream(batch=_batch(trial))
    parts = (cut(contract.inputs, feeds, 0, before), cut(contract.inputs, feeds, before, None))
    first, last = (trial.feed(stream, part) for part in parts)
    return last, first


def _hold_rows(trial: Trial, actual: Arrays, quiet: Arrays, frames: int) -> Iterator[Finding]:
    contract, batch = trial.contract, _batch(trial)
    for index in range(1, batch):
        run = {"batch": batch, "frames": frames, "row": index}
        moved, unmoved = (row(contract, values, index) for values in (actual, quiet))
        yield from trial.same("loud", moved, unmoved, NOTHING, run)


def _hold_frames(
    trial: Trial, actual: Arrays, quiet: Arrays, at: int, emitted: Arrays
) -> Iterator[Finding]:
    """The frames of the last call that saw nothing of frame `at`."""
    for port in trial.contract.outputs:
        count = 0
        if port.time_axis is not None:
            count = unreached(port, at) - emitted[port.name].shape[port.time_axis]
        if count > 0:
            moved, unmoved = (
                {port.name: frames_of(port, v[port.name], 0, count)} for v in (actual, quiet)
            )
            run = {"batch": _batch(trial), "frames": at + 1, "changed": at}
            yield from trial.same("loud", moved, unmoved, NOTHING, run)


def _loud_row(trial: Trial, feeds: Arrays) -> Arrays:
    louder = {}
    for port in trial.contract.inputs:
        value = feeds[port.name].copy()
        if port.batch_axis is not None and value.dtype.kind == "f":
            np.moveaxis(value, port.batch_axis, 0)[0] *= TIMES
        louder[port.name] = value
    return louder


def _loud_from(trial: Trial, feeds: Arrays, at: int) -> Arrays:
    louder = {}
    for port in trial.contract.inputs:
        value = feeds[port.name].copy()
        if port.time_axis is not None and value.dtype.kind == "f":
            np.moveaxis(value, port.time_axis, 0)[port.here(at) :] *= TIMES
        louder[port.name] = value
    return louder

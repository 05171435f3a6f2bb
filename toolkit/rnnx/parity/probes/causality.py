"""A frame reaches no output before the contract says that it may."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from rnnx.parity.probes.reset import NOTHING
from rnnx.parity.report import Finding
from rnnx.parity.trial import Array, Arrays, Trial
from rnnx_runtime.contract import Port

FRAMES = 16
LOUD = 30.0


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    if not trial.contract.streaming:
        return "the artifact takes whole sequences"
    timed = [port for port in trial.contract.outputs if port.time_axis is not None]
    return None if timed else "no output has frames"


def probe(trial: Trial) -> Iterator[Finding]:
    """Change all frames from one on: the outputs that saw none of them must stay as they are.

    The frames become loud, and NaN: onnxruntime's GRU and LSTM clamp NaN away in their gates. All
    go through in one call, where a graph could look ahead; but step by step where a call's range
    rounds them all (see `loud`).
    """
    contract = trial.contract
    (batch,) = trial.batches(1)
    frames = contract.first_chunk + FRAMES * contract.chunk_multiple
    at = contract.first_chunk + FRAMES // 2 * contract.chunk_multiple
    feeds = trial.inputs(trial.rng("causality"), batch=batch, frames=frames)
    chunk = contract.chunk_multiple if trial.rounds_by_range else frames
    quiet = early(trial, trial.stream(feeds, itertools.repeat(chunk), batch=batch), at)
    for port, kind, value in _changes(trial, feeds, at):
        changed = trial.stream(feeds | {port.name: value}, itertools.repeat(chunk), batch=batch)
        run = {"frames": frames, "changed": at, kind: 1}
        yield from trial.same("causality", early(trial, changed, at), quiet, NOTHING, run)


def early(trial: Trial, values: Arrays, at: int) -> Arrays:
    """The output frames that saw nothing of the input from frame `at` on."""
    return {
        port.name: _until(port, values[port.name], at)
        for port in trial.contract.outputs
        if port.time_axis is not None
    }


def unreached(port: Port, at: int) -> int:
    """How many of an output's frames see nothing of the input from frame `at` on."""
    return next(frame for frame in itertools.count() if port.sees(frame)[1] >= at)


def _until(port: Port, value: Array, at: int) -> Array:
    return value[(slice(None),) * (port.time_axis or 0) + (slice(unreached(port, at)),)]


def _changes(trial: Trial, feeds: Arrays, at: int) -> Iterator[tuple[Port, str, Array]]:
    for port in trial.contract.inputs:
        if port.time_axis is None:
            continue
        kinds = {"loud": LOUD, "nan": np.nan} if feeds[port.name].dtype.kind == "f" else {"id": 1}
        for kind, content in kinds.items():
            yield port, kind, _changed(port, feeds[port.name], at, content)


def _changed(port: Port, value: Array, at: int, content: float) -> Array:
    value = value.copy()
    frames = np.moveaxis(value, port.time_axis or 0, 0)[port.here(at) :]
    if value.dtype.kind == "f":
        frames[:] = content
    else:
        frames[:] = (frames + 1) % (port.num_embeddings or 2)
    return value

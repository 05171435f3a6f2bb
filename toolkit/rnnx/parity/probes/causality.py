"""A frame reaches no output before the contract says that it may."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from rnnx.parity.report import Finding
from rnnx.parity.trial import NOTHING, Array, Arrays, Trial
from rnnx_runtime.chunks import frames_of
from rnnx_runtime.contract import Port
from rnnx_runtime.samples import changed_from

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
        port.name: frames_of(port, values[port.name], 0, unreached(port, at))
        for port in trial.contract.outputs
        if port.time_axis is not None
    }


def unreached(port: Port, at: int) -> int:
    """How many of an output's frames see nothing of the input from frame `at` on."""
    return next(frame for frame in itertools.count() if port.sees(frame)[1] >= at)


def _changes(trial: Trial, feeds: Arrays, at: int) -> Iterator[tuple[Port, str, Array]]:
    for port in trial.contract.inputs:
        if port.time_axis is None:
            continue
        kinds = {"loud": LOUD, "nan": np.nan} if feeds[port.name].dtype.kind == "f" else {"id": 1}
        for kind, content in kinds.items():
            yield port, kind, changed_from(port, feeds[port.name], at, content)

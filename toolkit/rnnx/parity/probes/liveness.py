"""Every input and every state matters: changed, it changes something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from rnnx.parity.report import Finding
from rnnx.parity.trial import Array, Arrays, Trial, differ
from rnnx_runtime import snapshot
from rnnx_runtime.contract import Port

FRAMES = 8
BATCH = 2


def probe(trial: Trial) -> Iterator[Finding]:
    """Change one input or one state at a time; where that changes nothing, torch must agree."""
    (batch,) = trial.batches(BATCH)
    rng, frames = trial.rng("liveness"), FRAMES * trial.contract.first_chunk
    feeds = trial.inputs(rng, batch=batch, frames=frames)
    run = {"batch": batch, "frames": frames}
    for port in trial.contract.inputs:
        other = feeds | {port.name: _changed(port, feeds[port.name], rng)}
        reason = None if _matters(trial, feeds, other) else "it changes nothing: it is ignored"
        yield trial.verdict("liveness", port.name, run, reason)
    if trial.contract.streaming:
        yield from _hold_states(trial, feeds, rng, run)


def _changed(port: Port, value: Array, rng: np.random.Generator) -> Array:
    if port.counts_frames:
        return np.asarray(np.maximum(value // 2, 1), value.dtype)
    if value.dtype.kind != "f":
        return ((value + 1) % (port.num_embeddings or 2)).astype(value.dtype)
    return np.asarray(value + rng.standard_normal(value.shape), value.dtype)


def _matters(trial: Trial, feeds: Arrays, other: Arrays) -> bool:
    if differ(trial.run(feeds), trial.run(other)):
        return True
    (one, _), (two, _) = (trial.reference.run(each) for each in (feeds, other))
    return not differ(one, two)


def _hold_states(
    trial: Trial, feeds: Arrays, rng: np.random.Generator, run: dict[str, int]
) -> Iterator[Finding]:
    stream = trial.artifact.stream(batch=run["batch"])
    trial.feed(stream, feeds)
    taken = snapshot.unpack(stream.snapshot())
    unmoved = trial.stream(feeds, [run["frames"]], stream=stream)
    # The last frame is read only by a call that brings none, and most networks know no such call.
    for state in (state for state in trial.contract.states if state.kind != "last"):
        noisy = {**taken.arrays, state.name: _noisy(taken.arrays[state.name], rng)}
        stream.restore(snapshot.pack(replace(taken, arrays=noisy)))
        moved = differ(trial.stream(feeds, [run["frames"]], stream=stream), unmoved)
        dead = not moved and _is_dead(trial, feeds, taken.arrays, noisy)
        reason = None if moved or dead else "it changes nothing: it is ignored"
        yield trial.verdict("liveness", state.name, run, reason)


def _is_dead(
    trial: Trial, feeds: Arrays, states: Mapping[str, Array], other: Mapping[str, Array]
) -> bool:
    """Whether these states make no difference to torch either: a ReLU may stay at 0."""
    if not trial.reference.has_all_states:
        return False
    (one, last), (two, final) = (trial.reference.run(feeds, each) for each in (states, other))
    return not differ({**one, **last}, {**two, **final})


def _noisy(value: Array, rng: np.random.Generator) -> Array:
    if value.dtype.kind != "f":  # ids that wait, say: 0 and 1 are any table's
        return np.where(value > 0, 0, 1).astype(value.dtype)
    return np.asarray(value + rng.standard_normal(value.shape), value.dtype)

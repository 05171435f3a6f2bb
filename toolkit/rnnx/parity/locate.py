"""`locate`: the first block of an artifact that leaves its torch model, and the first frame.

The graph is run twice: as it is, and cut at every wire of which torch tells the value, so that each
block is given what torch gives it and shows its own error only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy.typing as npt

from rnnx.parity.gate import Gate
from rnnx.parity.held import Held, Known, hold
from rnnx.parity.location import Block, Location
from rnnx.parity.reference import TorchReference
from rnnx.parity.trial import Trial
from rnnx.parity.watching import Place, watched
from rnnx_runtime import Contract, chunks
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

# Even, for networks that halve their frames.
_STEPS, _OTHER_STEPS = 16, 18


def locate(trial: Trial, reference: TorchReference, exact: TorchReference) -> Location:
    """Hold every block of the artifact against the torch model, over one whole sequence.

    Where all is right there, a stream is run over the sequence in two calls as well. Recurrent
    states begin at random values, where the artifact has any; caches as the contract says. The
    inputs are random, or the first of the user's recordings.

    Args:
        trial: the artifact and what is near enough.
        reference, exact: the torch model in float32 and in float64.

    Raises:
        InputError: every call of the artifact takes a chunk of one length.
        ArtifactError: the graph does not run.
    """
    contract = trial.contract
    _refuse_fixed(trial)
    feeds, batch, frames = _sequence(trial)
    starts = _starts(trial, reference, batch)
    known = _known(trial, reference, exact, feeds, starts, batch=batch)
    run = {"batch": batch, "frames": frames}
    states = {state.input_name: starts[state.name] for state in contract.states}
    if not contract.streaming:
        return _location(trial.gate, hold(trial, [feeds], states, known), run)
    ready, half = chunks.fed_after(contract, frames), chunks.fed_after(contract, frames // 2)
    held = hold(trial, _calls(contract, feeds, [0, ready]), states, known)
    location = _location(trial.gate, held, run)
    if location.first is not None or not half:
        return location
    # What is carried from call to call shows in the second.
    held = hold(trial, _calls(contract, feeds, [0, half, ready]), states, known)
    return _location(trial.gate, held, run | {"calls": 2})


def _location(gate: Gate, held: Sequence[Held], run: Mapping[str, int]) -> Location:
    groups: dict[str, list[Held]] = {}
    for one in held:
        groups.setdefault(one.wire.block, []).append(one)
    return Location(tuple(_block(gate, group) for group in groups.values()), run)


def _refuse_fixed(trial: Trial) -> None:
    if trial.contract.chunk is not None:
        raise InputError(
            f"{trial.artifact.path!r} takes chunks of {trial.contract.chunk} frames, which cannot"
            " be looked into",
            hint="Locate in the artifact of the same model without a fixed chunk.",
        )


def _sequence(trial: Trial) -> tuple[Arrays, int, int]:
    """The inputs, how many sequences they are, and of how many frames."""
    if trial.recordings:
        recording = trial.recordings[0]
        return recording.inputs, recording.batch, recording.frames
    (batch,) = trial.batches(2)
    frames = _STEPS * trial.contract.first_chunk
    return trial.inputs(trial.rng("locate"), batch=batch, frames=frames), batch, frames


def _calls(contract: Contract, feeds: Arrays, cuts: Sequence[int]) -> list[Arrays]:
    """The frames between the cuts, each with the masks of a stream that goes on."""
    return [
        chunks.cut(contract.inputs, feeds, start, stop)
        | {port.name: chunks.mask(port, start, stop - start, None) for port in contract.masks}
        for start, stop in pairwise(cuts)
    ]


def _starts(trial: Trial, reference: TorchReference, batch: int) -> dict[str, Array]:
    """Random states where torch has them too, else those that the contract holds."""
    rng, states = trial.rng("states"), trial.contract.states
    random = {
        state.name: rng.standard_normal(state.shape(batch=batch)).astype(state.dtype)
        for state in states
    }
    starts = {state.name: state.start(batch=batch) for state in states}
    return starts | {name: random[name] for name in reference.comparable(random)}


def _known(
    trial: Trial,
    reference: TorchReference,
    exact: TorchReference,
    feeds: Arrays,
    starts: Arrays,
    *,
    batch: int,
) -> dict[Place, Known]:
    """What torch tells."""
    single = watched(reference, feeds, starts)
    frames = _OTHER_STEPS * trial.contract.first_chunk
    others = trial.inputs(trial.rng("others"), batch=batch, frames=frames)
    shapes = {place: value.shape for place, value in watched(reference, others, starts).items()}
    try:
        double = watched(exact, feeds, starts)
    except InputError:  # a module may name float32 in its code
        double = {}
    known = {
        place: Known(value, double.get(place), _axis(value.shape, shapes.get(place, ())))
        for place, value in single.items()
    }
    return {place: one for place, one in known.items() if _is_alike(trial, place, one, starts)}


def _is_alike(trial: Trial, place: Place, known: Known, starts: Arrays) -> bool:
    """Whether the artifact has that very tensor.

    A stream that holds frames back has not come to the end; a projected LSTM has other states.
    """
    if trial.contract.lags and known.time_axis is None:
        return place.is_start
    start = starts.get(place.port)
    return start is None or start.shape == known.wanted.shape


def _axis(shape: tuple[int, ...], others: tuple[int, ...]) -> int | None:
    """The axis whose size differs where there are other frames."""
    pairs = enumerate(zip(shape, others, strict=False))
    return next((axis for axis, (size, other) in pairs if size != other), None)


def _block(gate: Gate, group: Sequence[Held]) -> Block:
    """All wires of one block as one: it is as far off as the farthest."""
    place = group[0].wire.place
    local = [(one, found) for one in group if (found := one.judge(gate, one.apart))]
    total = [found for one in group if (found := one.judge(gate, one.whole))]
    failed = [(one, found) for one, found in local if not found.passed]
    steps = [_first_step(gate, one) for one, _ in failed]
    return Block(
        block=group[0].wire.block,
        module=group[0].wire.module,
        layer=place.layer,
        local=max((found.max_abs for _, found in local), default=0.0),
        accumulated=max((found.max_abs for found in total), default=0.0),
        first_step=min((step for step in steps if step is not None), default=None),
        passed=not failed,
        others=tuple(dict.fromkeys(name for one in group for name in one.others)),
        reason=next((found.reason for _, found in failed if found.reason), None),
    )


def _first_step(gate: Gate, held: Held) -> int | None:
    """The first frame out of tolerance; None where the tensor has no frames."""
    if held.wire.place.is_start:
        return 0
    axis, known = held.known.time_axis, held.known
    if axis is None or held.apart.shape != known.wanted.shape:
        return None
    for frame in range(known.wanted.shape[axis]):
        exact = None if known.exact is None else known.exact.take([frame], axis)
        one = Known(known.wanted.take([frame], axis), exact, None)
        apart = held.apart.take([frame], axis)
        found = replace(held, known=one).judge(gate, apart)
        if found is not None and not found.passed:
            return frame
    return None

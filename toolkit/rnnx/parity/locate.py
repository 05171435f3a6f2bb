"""`locate`: the first block of an artifact that leaves its torch model, and the first frame.

The graph is run twice: as it is, and cut at every wire of which torch tells the value, so that each
block is given what torch gives it and shows its own error only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rnnx.parity.gate import Gate
from rnnx.parity.judge import Pair, floors_of, judge
from rnnx.parity.location import Block, Location
from rnnx.parity.reference import TorchReference
from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial
from rnnx.parity.watching import Place, watched
from rnnx.parity.wires import Wire, cut, expose, find_wires
from rnnx_exporters.artifact import load_graph
from rnnx_exporters.proof import session_of
from rnnx_runtime import Contract, chunks
from rnnx_runtime.errors import ArtifactError, InputError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]

# Even, for networks that halve their frames.
_STEPS, _OTHER_STEPS = 16, 18


@dataclass(frozen=True, slots=True)
class Known:
    """A tensor of the torch model.

    Attributes:
        wanted: in float32.
        exact: in float64, where the model can compute so.
        time_axis: the axis that counts frames, or None.
    """

    wanted: Array
    exact: Array | None
    time_axis: int | None

    def like(self, computed: Array) -> Known:
        """As many of the first frames as a stream has computed."""
        axis = self.time_axis
        if axis is None or not self.is_as_wide(computed):
            return self
        frames = range(min(computed.shape[axis], self.wanted.shape[axis]))
        exact = None if self.exact is None else self.exact.take(frames, axis)
        return Known(self.wanted.take(frames, axis), exact, axis)

    def is_as_wide(self, computed: Array) -> bool:
        """Whether all axes but that of time are alike."""
        pairs = enumerate(zip(computed.shape, self.wanted.shape, strict=False))
        same = all(one == other for axis, (one, other) in pairs if axis != self.time_axis)
        return same and computed.ndim == self.wanted.ndim


@dataclass(frozen=True, slots=True)
class Held:
    """A wire, computed in both ways, and what torch has there.

    Attributes:
        wire: the wire.
        whole, apart: computed in the whole run, and where all before it is as torch has it.
        known: torch's, of as many frames.
    """

    wire: Wire
    whole: Array
    apart: Array
    known: Known

    def judge(self, gate: Gate, computed: Array) -> Finding | None:
        """How far that is; None where torch itself is too far off to judge."""
        wanted, exact, axis = self.known.wanted, self.known.exact, self.known.time_axis
        floors = floors_of(wanted, exact, axis)
        pair = Pair(computed.astype(wanted.dtype), wanted, exact, floors, axis)
        return judge(gate, pair, "locate", self.wire.place.port, {})


def locate(trial: Trial, reference: TorchReference, exact: TorchReference) -> Location:
    """Hold every block of the artifact against the torch model, over one whole sequence.

    Recurrent states begin at random values, where the artifact has any; caches as the contract
    says. The inputs are random, or the first of the user's recordings.

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
    inputs = _as_one_chunk(contract, feeds, frames) if contract.streaming else feeds
    states = {state.input_name: starts[state.name] for state in contract.states}
    held = _run(load_graph(trial.artifact.path), trial, {**inputs, **states}, known)
    groups: dict[str, list[Held]] = {}
    for one in held:
        groups.setdefault(one.wire.block, []).append(one)
    blocks = tuple(_block(trial.gate, group) for group in groups.values())
    return Location(blocks, {"batch": batch, "frames": frames})


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


def _as_one_chunk(contract: Contract, feeds: Arrays, frames: int) -> dict[str, Array]:
    """As many frames as a stream runs of so many, and its masks."""
    ready = chunks.fed_after(contract, frames)
    masks = {port.name: chunks.mask(port, 0, ready, None) for port in contract.masks}
    return chunks.cut(contract.inputs, feeds, 0, ready) | masks


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


def _run(model: ir.Model, trial: Trial, inputs: Arrays, known: Mapping[Place, Known]) -> list[Held]:
    """Compute the wires in both ways."""
    wires = find_wires(model, trial.contract, known.keys())
    expose(model, wires)
    whole = _computed(model, wires, inputs)
    like = {wire: known[wire.place] for wire in wires}
    if trial.contract.streaming:
        like = {wire: one.like(whole[wire]) for wire, one in like.items()}
    # A module's wire of another width is none of torch's tensors; a layer's must be.
    wires = [wire for wire in wires if wire.is_certain or like[wire].is_as_wide(whole[wire])]
    names = cut(model, wires)
    given = {n: _given(like[w], whole[w].dtype) for n, w in zip(names, wires, strict=True)}
    apart = _computed(model, wires, {**inputs, **given})
    return [Held(wire, whole[wire], apart[wire], like[wire]) for wire in wires]


def _computed(model: ir.Model, wires: Sequence[Wire], inputs: Arrays) -> dict[Wire, Array]:
    session = session_of(model)
    taken = {port.name for port in session.get_inputs()}
    names = [str(wire.value.name) for wire in wires]
    try:
        results = session.run(names, {name: x for name, x in inputs.items() if name in taken})
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ArtifactError(f"the artifact's graph does not run block by block: {error}") from error
    return dict(zip(wires, results, strict=True))


def _given(known: Known, dtype: npt.DTypeLike) -> Array:
    return np.ascontiguousarray(known.wanted if known.exact is None else known.exact, dtype)


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
        found = Held(held.wire, apart, apart, one).judge(gate, apart)
        if found is not None and not found.passed:
            return frame
    return None

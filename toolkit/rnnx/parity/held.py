"""Runs an artifact's graph whole, and cut wherever torch tells the value: each block by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rnnx.parity.gate import Gate
from rnnx.parity.judge import Pair, floors_of, judge
from rnnx.parity.report import Finding
from rnnx.parity.trial import Trial
from rnnx.parity.watching import Place
from rnnx.parity.wires import Wire, cut, expose, find_wires, modules_behind
from rnnx_exporters.artifact import load_graph
from rnnx_exporters.proof import session_of
from rnnx_runtime import Contract
from rnnx_runtime.errors import ArtifactError

Array = npt.NDArray[Any]
Arrays = Mapping[str, Array]


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
        others: the other modules that compute it, of which torch tells nothing.
    """

    wire: Wire
    whole: Array
    apart: Array
    known: Known
    others: tuple[str, ...]

    def judge(self, gate: Gate, computed: Array) -> Finding | None:
        """How far that is; None where torch itself is too far off to judge."""
        wanted, exact, axis = self.known.wanted, self.known.exact, self.known.time_axis
        floors = floors_of(wanted, exact, axis)
        pair = Pair(computed.astype(wanted.dtype), wanted, exact, floors, axis)
        return judge(gate, pair, "locate", self.wire.place.port, {})


def hold(
    trial: Trial, calls: Sequence[Arrays], states: Arrays, known: Mapping[Place, Known]
) -> list[Held]:
    """Compute the wires in both ways, in the order of the graph.

    Args:
        trial: the artifact.
        calls: what the graph is given, call after call, without states.
        states: the states before the first call, by the graph's input.
        known: what torch tells, over all calls.

    Raises:
        ArtifactError: the graph does not run.
    """
    contract, model = trial.contract, load_graph(trial.artifact.path)
    wires = find_wires(model, contract, known.keys())
    expose(model, wires)
    parts = _computed(model, wires, contract, calls, states)
    whole = {wire: _joined(parts[wire], known[wire.place], wire) for wire in wires}
    like = {wire: known[wire.place] for wire in wires}
    if contract.streaming:
        like = {wire: one.like(whole[wire]) for wire, one in like.items()}
    # A module's wire of another width is none of torch's tensors; a layer's must be.
    wires = [wire for wire in wires if wire.is_certain or like[wire].is_as_wide(whole[wire])]
    # Of tensors without frames torch tells the last value only.
    timed = [wire for wire in wires if len(calls) == 1 or like[wire].time_axis is not None]
    names = list(zip(cut(model, timed), timed, strict=True))
    given = [
        {**call, **{name: _given(like[wire], parts[wire], number) for name, wire in names}}
        for number, call in enumerate(calls)
    ]
    parts = _computed(model, wires, contract, given, states)
    apart = {wire: _joined(parts[wire], like[wire], wire) for wire in wires}
    told = {wire.module for wire in wires}
    return [
        Held(wire, whole[wire], apart[wire], like[wire], modules_behind(wire, told))
        for wire in wires
    ]


def _computed(
    model: ir.Model,
    wires: Sequence[Wire],
    contract: Contract,
    calls: Sequence[Arrays],
    states: Arrays,
) -> dict[Wire, list[Array]]:
    """What each wire holds in each call, the states carried."""
    session = session_of(model)
    taken = {port.name for port in session.get_inputs()}
    names = [str(wire.value.name) for wire in wires]
    afters = [state.output_name for state in contract.states]
    parts: dict[Wire, list[Array]] = {wire: [] for wire in wires}
    for call in calls:
        feeds = {name: array for name, array in {**states, **call}.items() if name in taken}
        try:
            results = session.run([*names, *afters], feeds)
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise ArtifactError(
                f"the artifact's graph does not run block by block: {error}"
            ) from error
        for wire, array in zip(wires, results, strict=False):
            parts[wire].append(array)
        ends = results[len(names) :]
        states = {s.input_name: end for s, end in zip(contract.states, ends, strict=True)}
    return parts


def _joined(parts: Sequence[Array], known: Known, wire: Wire) -> Array:
    """The frames of all calls; without frames what a layer begins with, or the last value."""
    if known.time_axis is None:
        return parts[0] if wire.place.is_start else parts[-1]
    if not all(known.is_as_wide(part) for part in parts):
        return parts[-1]
    return np.concatenate(parts, known.time_axis)


def _given(known: Known, parts: Sequence[Array], number: int) -> Array:
    """What torch has of the frames of one call."""
    value, part = known.wanted if known.exact is None else known.exact, parts[number]
    axis = known.time_axis
    if axis is not None and known.is_as_wide(part):
        start = sum(earlier.shape[axis] for earlier in parts[:number])
        stop = min(start + part.shape[axis], value.shape[axis])
        value = value.take(range(start, stop), axis)
    return np.ascontiguousarray(value, part.dtype)

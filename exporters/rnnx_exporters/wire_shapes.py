"""The shapes of wires: read off the graph, or measured by running it where inference stopped.

So are the values of wires that depend on the sizes of the inputs alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from rnnx_exporters.proof import session_of
from rnnx_exporters.timeline import Refused
from rnnx_runtime.contract import Contract, Dims
from rnnx_runtime.samples import random_inputs

_TIME = "?"
# Tried one after another: a network may need many frames before it gives one, or a number of them
# that its strides divide but for a rest.
_REST = 32
_LENGTHS = (*range(64, 64 + _REST), 720, 8192, 96000)

# What shape inference names a size that it does not know.
_UNKNOWN = "unk__"

Array = npt.NDArray[Any]
Shapes = dict[ir.Value, tuple[int, ...]]


class WireShapes:
    """The shapes of the wires of one offline graph.

    Args:
        model: the graph; kept as it is.
        contract: its description.

    Attributes:
        model: the graph.
        batch: the name of its batch axis, or an empty one.
    """

    def __init__(self, model: ir.Model, contract: Contract) -> None:
        self.batch = next(
            (str(p.dims[p.batch_axis]) for p in contract.inputs if p.batch_axis is not None), ""
        )
        self.model = model
        self._contract = contract
        self._measured: dict[str, Dims] = {}

    def offline(self, value: ir.Value | None) -> ir.Value | None:
        """The wire of the offline graph that has this name."""
        if value is None:
            return None
        graph = self.model.graph
        wires = [*graph.inputs, *graph.initializers.values()]
        wires += [out for node in graph for out in node.outputs]
        return next(wire for wire in wires if wire.name == value.name)

    def sequence_axis(self, dims: Sequence[int | str], time_axis: int | None = None) -> int | None:
        """Which axis of these counts the sequences; the first one may where there is but one."""
        if self.batch in dims:
            return dims.index(self.batch)
        return 0 if not self.batch and dims[0] == 1 and time_axis != 0 else None

    def dims(self, value: ir.Value, time_axis: int) -> Dims:
        """The wire's axes: sizes, the name of the batch axis, and `"?"` for `time_axis`.

        A `time_axis` of -1 stands for none.

        Raises:
            Refused: a size is free and neither the batch nor the time.
        """
        dims = tuple(
            _TIME if axis == time_axis else dim
            for axis, dim in enumerate(_inferred(value) or self._measure(value))
        )
        if all(isinstance(dim, int) or dim in (_TIME, self.batch) for dim in dims):
            return dims
        return tuple(
            _TIME if axis == time_axis else dim for axis, dim in enumerate(self._measure(value))
        )

    def constant(self, value: ir.Value) -> Array:
        """The value, for two sequences, of a wire that depends on no input's content.

        Raises:
            Refused: the graph does not run up to it.
        """
        if value.const_value is not None:
            return value.const_value.numpy()
        return self._run([str(value.name)])[0][0]

    def _measure(self, value: ir.Value) -> Dims:
        name = str(value.name)
        if name not in self._measured:
            two, three, _ = self._run([name])
            self._measured[name] = tuple(map(self._dim, two[0].shape, three[0].shape))
        return self._measured[name]

    def sizes(self, names: Sequence[str]) -> list[Dims]:
        """The axes of wires: sizes, the batch's name, and other names for those that count frames.

        Axes that count alike have the same name.

        Raises:
            Refused: the graph does not run up to them.
        """
        runs = [[found.shape for found in run] for run in self._run(names)]
        return [tuple(map(self._size, *shapes)) for shapes in zip(*runs, strict=True)]

    def _size(self, two: int, three: int, longer: int) -> int | str:
        return self._dim(two, three) if two == longer else f"{two}, {three} or {longer}"

    def _dim(self, two: int, three: int) -> int | str:
        """The axis that has these sizes for two and for three sequences."""
        if two == three:
            return two
        rows = three - two
        if (two, three) != (2 * rows, 3 * rows):
            raise Refused("one of its sizes follows the batch, but not in proportion")
        return self.batch if rows == 1 else f"{rows} * {self.batch}"

    def rows(self, dim: int | str) -> int:
        """How many rows of an axis belong to one sequence; 0 where it does not count sequences."""
        if isinstance(dim, int) or not dim.endswith(self.batch):
            return 0
        return int(dim.partition(" ")[0]) if " * " in dim else 1

    def _run(self, names: Sequence[str]) -> tuple[list[Array], list[Array], list[Array]]:
        """The wires for two and for three sequences of a length that runs, and of a greater one."""
        made = {value.name: value for node in self.model.graph for value in node.outputs}
        wires = [made[name] for name in names]
        part = ir.convenience.extract(self.model.graph, list(self.model.graph.inputs), wires)
        session = session_of(ir.Model(part, ir_version=self.model.ir_version))
        two, three = (2, 3) if self.batch else (1, 1)
        frames, found = self._first(session, two, _LENGTHS)
        _, longer = self._first(session, two, range(2 * frames, 2 * frames + _REST))
        return found, self._at(session, three, frames), longer

    def _first(
        self, session: ort.InferenceSession, batch: int, lengths: Iterable[int]
    ) -> tuple[int, list[Array]]:
        """The first of the lengths that runs, and what it gives."""
        for frames in lengths:
            try:
                return frames, self._at(session, batch, frames)
            except Exception:  # too short for the network, say
                continue
        names = ", ".join(repr(node.name) for node in session.get_outputs())
        raise Refused(f"the shape of {names} is not known")

    def _at(self, session: ort.InferenceSession, batch: int, frames: int) -> list[Array]:
        rng, taken = np.random.default_rng(0), {node.name for node in session.get_inputs()}
        feeds = random_inputs(self._contract, rng, batch=batch, frames=frames)
        found: list[Array] = session.run(None, {k: x for k, x in feeds.items() if k in taken})
        return found


def complete(model: ir.Model, contract: Contract) -> None:
    """Fill in the sizes inside the graph that shape inference did not find."""
    values = [value for node in model.graph for value in node.outputs if _is_open(value)]
    if not values:
        return
    try:
        sizes = WireShapes(model.clone(), contract).sizes([str(value.name) for value in values])
    except Exception:  # it does not run as it is; where that matters, it is told
        return
    for value, dims in zip(values, sizes, strict=True):
        value.shape = ir.Shape(dims)


def _is_open(value: ir.Value) -> bool:
    if not value.name or value.is_graph_output():
        return False
    return value.shape is None or any(
        isinstance(dim, ir.SymbolicDim) and (dim.value or _UNKNOWN).startswith(_UNKNOWN)
        for dim in value.shape
    )


def _inferred(value: ir.Value) -> Dims:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)


def forget_shapes(model: ir.Model) -> None:
    """Drop what is known of the wires inside: chunks have other sizes than sequences."""
    kept = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        for value in set(node.outputs) - kept:
            value.shape = None

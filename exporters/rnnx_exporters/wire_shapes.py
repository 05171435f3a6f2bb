"""The shapes of wires: read off the graph, or measured by running it where inference stopped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from rnnx_exporters.proof import session_of
from rnnx_exporters.timeline import Refused
from rnnx_runtime.contract import Contract, Dims
from rnnx_runtime.samples import random_inputs

_TIME = "?"
# Tried one after another: a network may need many frames before it gives one.
_LENGTHS = (64, 720, 8192, 96000)


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

    def batch_axis(self, value: ir.Value) -> int | None:
        """Which axis of a wire without frames counts the sequences."""
        dims = self.dims(value, time_axis=-1)
        return dims.index(self.batch) if self.batch in dims else None

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

    def _measure(self, value: ir.Value) -> Dims:
        name = str(value.name)
        if name not in self._measured:
            shapes = list(self._run(name))
            if len(shapes) < 2:
                raise Refused(f"the shape of {name!r} is not known")
            self._measured[name] = tuple(
                size if size == other else self.batch for size, other in zip(*shapes, strict=True)
            )
        return self._measured[name]

    def _run(self, name: str) -> Iterator[tuple[int, ...]]:
        """The wire's shapes for two and three sequences of the first length that runs."""
        wire = next(v for node in self.model.graph for v in node.outputs if v.name == name)
        part = ir.convenience.extract(self.model.graph, list(self.model.graph.inputs), [wire])
        session = session_of(ir.Model(part, ir_version=self.model.ir_version))
        taken = {node.name for node in session.get_inputs()}
        for frames in _LENGTHS:
            try:
                shapes = []
                for batch in (2, 3) if self.batch else (1, 1):
                    rng = np.random.default_rng(0)
                    feeds = random_inputs(self._contract, rng, batch=batch, frames=frames)
                    fitting = {key: x for key, x in feeds.items() if key in taken}
                    shapes.append(session.run(None, fitting)[0].shape)
                yield from shapes
                return
            except Exception:  # too short for the network, say
                continue


def _inferred(value: ir.Value) -> Dims:
    if value.shape is None:
        return ()
    return tuple(dim if isinstance(dim, int) else str(dim.value) for dim in value.shape)

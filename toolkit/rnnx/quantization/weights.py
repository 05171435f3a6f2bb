"""Finds the weights of a graph: the float32 constants that layers multiply with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rnnx_runtime.errors import QuantizationError

RECURRENT = ("RNN", "GRU", "LSTM")
INITIAL_H = 5  # the input that is the state before the first frame


@dataclass(frozen=True, slots=True)
class Weight:
    """A float32 initializer that layers multiply with.

    Attributes:
        value: the initializer.
        nodes: the layers it is a weight of; several where layers share it.
        summed: the axes a layer sums over; each output row, along the others, has its own scale.
    """

    value: ir.Value
    nodes: tuple[ir.Node, ...]
    summed: tuple[int, ...]

    def array(self) -> npt.NDArray[np.float32]:
        """Its content.

        Raises:
            QuantizationError: it holds NaN or infinity.
        """
        return constant_array(self.value)


def find_weights(model: ir.Model) -> Iterator[Weight]:
    """The weights of `model`, subgraphs included, each once."""
    for graph in model.graphs():
        for value in filter(is_constant, graph.initializers.values()):
            uses = {node: summed for node, summed in _uses(value) if summed}
            if uses:
                yield Weight(value, tuple(uses), next(iter(uses.values())))


def is_constant(value: ir.Value | None) -> bool:
    """Whether `value` is float32 and the same in every run."""
    return (
        value is not None
        and value.is_initializer()
        and not value.is_graph_input()  # a default that a caller may override
        and value.dtype == ir.DataType.FLOAT
    )


def constant_array(value: ir.Value | None) -> npt.NDArray[Any]:
    """The content of a constant.

    Raises:
        QuantizationError: it holds NaN or infinity.
    """
    assert value is not None
    assert value.const_value is not None
    array = value.const_value.numpy()
    if not np.isfinite(array).all():
        raise QuantizationError(
            f"weight {value.name!r} holds NaN or infinity",
            hint="The network was broken before: train or export it again.",
        )
    return array


def describe_computed(node: ir.Node) -> str | None:
    """Why the weights of a recurrent node cannot be made smaller; None where they can."""
    if all(is_constant(value) for value in node.inputs[1:3]):
        return None
    return (
        f"{node.op_type} {node.name!r} is left as it was: its weights are not float32 initializers."
    )


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, tuple[int, ...]]]:
    """The nodes that read a constant, and the axes each sums over, seen through Transpose."""
    assert value.const_value is not None
    rank = len(value.const_value.shape)
    for node, index in value.uses():
        if node.op_type != "Transpose":
            yield node, _summed(node, index, rank)
            continue
        perm = node.attributes.get_ints("perm", range(rank)[::-1])
        for reader, position in node.outputs[0].uses():
            yield reader, tuple(perm[axis] for axis in _summed(reader, position, rank))


def _summed(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """The axes that `node` sums over in its input `index`; none where that is not a weight."""
    find = _SUMMED.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    return find(node, index, rank) if find else ()


def _recurrent(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """W and R, `[directions, gates * hidden_size, features]`."""
    return (2,) if index in (1, 2) else ()


def _matmul(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """The second factor `[..., in, out]`, or the first `[..., out, in]`."""
    return (rank - 1,) if index == 0 else (max(rank - 2, 0),)


def _gemm(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """The second factor `[in, out]`, or the first `[out, in]`; each may be transposed."""
    if index == 0:
        return (0,) if node.attributes.get_int("transA", 0) else (1,)
    if index == 1:
        return (1,) if node.attributes.get_int("transB", 0) else (0,)
    return ()


def _gather(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """An embedding: each entry along the gathered axis is a row."""
    axis = node.attributes.get_int("axis", 0) % rank
    return _all_but(axis, rank) if index == 0 else ()


def _conv(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """`[out, in / groups, ...]`."""
    return _all_but(0, rank) if index == 1 else ()


def _conv_transpose(node: ir.Node, index: int, rank: int) -> tuple[int, ...]:
    """`[in, out / groups, ...]`."""
    return _all_but(1, rank) if index == 1 else ()


def _all_but(axis: int, rank: int) -> tuple[int, ...]:
    return tuple(other for other in range(rank) if other != axis)


_SUMMED: Mapping[str, Callable[[ir.Node, int, int], tuple[int, ...]]] = {
    "RNN": _recurrent,
    "GRU": _recurrent,
    "LSTM": _recurrent,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Gather": _gather,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
}

"""How small weights stand in the file, and the operators that widen them when it is loaded.

onnxruntime folds these once, before the first run: a step costs what it did. DequantizeLinear it
would run in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx.quantization.rows import Rounded
from rnnx.quantization.store import constant

Array = npt.NDArray[Any]


class Form(Protocol):
    """A weight as it is kept."""

    @property
    def nbytes(self) -> int:
        """What it takes in the file."""

    def widened(self, tape: Tape, graph: ir.Graph, name: str) -> ir.Value:
        """Keep it in a graph under a name, and widen it to float32."""


@dataclass(frozen=True, slots=True)
class Plain:
    """As it is, in float16 or float32."""

    array: Array

    @property
    def nbytes(self) -> int:
        """See `Form`."""
        return int(self.array.nbytes)

    def widened(self, tape: Tape, graph: ir.Graph, name: str) -> ir.Value:
        """See `Form`."""
        return _cast(tape, graph, f"{name}/{self.array.dtype}", self.array)


@dataclass(frozen=True, slots=True)
class Scaled:
    """int8 codes, and scales that have 1 along the axes within a row."""

    codes: Array
    scales: Array

    @property
    def nbytes(self) -> int:
        """See `Form`."""
        return int(self.codes.nbytes + self.scales.nbytes)

    def widened(self, tape: Tape, graph: ir.Graph, name: str) -> ir.Value:
        """See `Form`."""
        scales = constant(graph, f"{name}/scale", self.scales)
        return tape.op("Mul", [_cast(tape, graph, f"{name}/int8", self.codes), scales])


@dataclass(frozen=True, slots=True)
class Nibbles:
    """Four bits for each weight, with a scale and a code of zero for each block.

    The first half of a block stands in the lower halves of its bytes, the second in the upper.

    Attributes:
        rounded: what was rounded, `[..., rows, blocks, block_size]`.
        features: how many weights a row has; the last block is padded.
        axis: the axis of the weight along which they go.
    """

    rounded: Rounded
    features: int
    axis: int

    @property
    def nbytes(self) -> int:
        """See `Form`."""
        codes, scales, zeros = self.rounded
        return int(codes.size // 2 + scales.nbytes + zeros.nbytes)

    def widened(self, tape: Tape, graph: ir.Graph, name: str) -> ir.Value:
        """See `Form`."""
        codes, scales, zeros = self.rounded
        half = codes.shape[-1] // 2
        packed = codes[..., :half] | np.left_shift(codes[..., half:], 4)
        wide = _cast(tape, graph, f"{name}/int4", packed)
        upper = tape.op("Floor", [tape.op("Mul", [wide, _number(graph, 1 / 16)])])
        lower = tape.op("Sub", [wide, tape.op("Mul", [upper, _number(graph, 16)])])
        both = tape.op("Concat", [lower, upper], {"axis": -1})
        zero = _cast(tape, graph, f"{name}/zero", zeros[..., None])
        scale = _cast(tape, graph, f"{name}/scale", scales[..., None])
        weights = tape.op("Mul", [tape.op("Sub", [both, zero]), scale])
        return self._laid_out(tape, graph, weights)

    def _laid_out(self, tape: Tape, graph: ir.Graph, weights: ir.Value) -> ir.Value:
        """Blocks side by side, without padding, along the axis of the weight."""
        *rows, blocks, size = self.rounded.codes.shape
        flat = tape.op("Reshape", [weights, _whole(graph, *rows, blocks * size)])
        if self.features < blocks * size:
            ends = [_whole(graph, number) for number in (0, self.features, -1)]
            flat = tape.op("Slice", [flat, *ends])
        order = list(range(len(rows)))
        order.insert(self.axis, len(rows))
        return flat if order == sorted(order) else tape.op("Transpose", [flat], {"perm": order})


@dataclass(frozen=True, slots=True)
class Joined:
    """Parts of a weight, one behind the other along an axis."""

    parts: Sequence[Form]
    axis: int

    @property
    def nbytes(self) -> int:
        """See `Form`."""
        return sum(part.nbytes for part in self.parts)

    def widened(self, tape: Tape, graph: ir.Graph, name: str) -> ir.Value:
        """See `Form`."""
        parts = [part.widened(tape, graph, f"{name}/{i}") for i, part in enumerate(self.parts)]
        return tape.op("Concat", parts, {"axis": self.axis})


def _cast(tape: Tape, graph: ir.Graph, name: str, array: Array) -> ir.Value:
    kept = constant(graph, name, array)
    if array.dtype == np.float32:
        return kept
    return tape.op("Cast", [kept], {"to": ir.DataType.FLOAT.value})


def _number(graph: ir.Graph, number: float) -> ir.Value:
    return constant(graph, f"rnnx.{number:g}", np.array(number, np.float32))


def _whole(graph: ir.Graph, *numbers: int) -> ir.Value:
    return constant(graph, "rnnx.whole." + ".".join(map(str, numbers)), np.array(numbers))

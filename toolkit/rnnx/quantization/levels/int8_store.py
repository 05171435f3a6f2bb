"""int8-store: weights kept as int8 with one float32 scale for each output row.

`Cast(int8) * scale` is folded when the file is loaded, so a step costs what it did.
DequantizeLinear is not: onnxruntime would run it in every step.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.forms import Scaled
from rnnx.quantization.rows import quantize_rows
from rnnx.quantization.store import store_weights
from rnnx.quantization.weights import Weight


def apply(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Keep the weights of `model` as int8; its layers compute in float32 as before."""
    return store_weights(model, to_int8)


def to_int8(weight: Weight) -> Scaled:
    """Codes of eight bits, a scale for each row."""
    return in_rows(weight.array(), weight.summed)


def in_rows(array: npt.NDArray[Any], summed: tuple[int, ...]) -> Scaled:
    """The same for an array, or a part of one, that a layer sums over along these axes."""
    return Scaled(*quantize_rows(array, summed))

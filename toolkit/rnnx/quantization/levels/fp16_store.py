"""fp16-store: weights kept as float16 and cast to float32 once, when the file is loaded."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.forms import Plain
from rnnx.quantization.store import store_weights
from rnnx.quantization.weights import Weight
from rnnx_runtime.errors import QuantizationError


def apply(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Keep the weights of `model` as float16; its layers compute in float32 as before."""
    return store_weights(model, to_float16)


def to_float16(weight: Weight) -> Plain:
    """Half precision.

    Raises:
        QuantizationError: a value is too large for it.
    """
    array = weight.array()
    if np.abs(array).max() > np.finfo(np.float16).max:
        raise QuantizationError(
            f"weight {weight.value.name!r} holds values beyond float16's range",
            hint="Use level int8-store, which scales every row.",
        )
    return Plain(array.astype(np.float16))

"""int4-store: weights kept with four bits each, computed in float32 as before.

In blocks of 32 that share a scale, rounded by GPTQ where calibration data tells what the layer
meets. Convolutions are kept as int8: they are small, and sum over few weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.forms import Form, Nibbles
from rnnx.quantization.gptq import gptq
from rnnx.quantization.levels.int8_store import to_int8
from rnnx.quantization.observing import names_of
from rnnx.quantization.rows import Rounded, round_blocks
from rnnx.quantization.store import store_weights
from rnnx.quantization.weights import Weight

Array = npt.NDArray[Any]

BITS, BLOCK_SIZE = 4, 32


def apply(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Keep the weights of `model` so; its layers compute in float32 as before."""
    hessians = given.observed()
    change = store_weights(model, lambda weight: to_int4(weight, hessians))
    if not hessians:
        change.notes.append(ALONE)
    return change


ALONE = (
    "Weights of four bits were rounded each by itself: give calibration data, by which they are"
    " rounded so that the outputs change least."
)


def to_int4(weight: Weight, hessians: Mapping[str, Array]) -> Form:
    """Four bits for the weights of a layer that sums over one axis; int8 for others."""
    if len(weight.summed) != 1:
        return to_int8(weight)
    (axis,) = weight.summed
    rows = np.moveaxis(weight.array(), axis, -1)
    return Nibbles(_rounded(rows, names_of(weight), hessians), rows.shape[-1], axis)


def _rounded(rows: Array, names: list[str], hessians: Mapping[str, Array]) -> Rounded:
    """Rows `[directions, rows, features]` of a recurrent layer each by its own Hessian."""
    if not names or any(name not in hessians for name in names):
        return round_blocks(rows, BITS, BLOCK_SIZE)
    parts = rows if rows.ndim == 3 else rows[None]
    made = [
        gptq(part, hessians[name], BITS, BLOCK_SIZE)
        for part, name in zip(parts, names, strict=True)
    ]
    joined = (np.stack(each) for each in zip(*made, strict=True))
    return Rounded(*(each.reshape(*rows.shape[:-1], *each.shape[2:]) for each in joined))

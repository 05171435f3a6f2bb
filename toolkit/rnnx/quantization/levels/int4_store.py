"""int4-store: weights kept with four bits each, computed in float32 as before.

In blocks of 32 that share a scale, rounded by GPTQ where calibration data tells what the layer
meets. Kept as int8 are convolutions, which are small and sum over few weights, and embeddings,
which sum over none, so that nothing makes up for an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.forms import Form, Nibbles
from rnnx.quantization.gptq import gptq
from rnnx.quantization.levels.int8_store import in_rows, to_int8
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
    change.notes += rounding_notes(hessians)
    return change


def rounding_notes(hessians: Mapping[str, Array]) -> list[str]:
    """What to know of weights of four bits that no data rounded."""
    if hessians:
        return []
    return [
        "Weights of four bits were rounded each by itself: give calibration data, by which they are"
        " rounded so that the outputs change least."
    ]


def to_int4(weight: Weight, hessians: Mapping[str, Array]) -> Form:
    """Four bits for the weights of a layer that sums over one axis; int8 for others."""
    if any(node.op_type == "Gather" for node in weight.nodes):
        return to_int8(weight)
    return in_nibbles(weight.array(), weight.summed, [hessians.get(n) for n in names_of(weight)])


def in_nibbles(array: Array, summed: tuple[int, ...], hessians: Sequence[Array | None]) -> Form:
    """The same for an array, or a part of one, with the Hessian of each direction if known."""
    if len(summed) != 1:
        return in_rows(array, summed)
    (axis,) = summed
    rows = np.moveaxis(array, axis, -1)
    return Nibbles(_rounded(rows, hessians), rows.shape[-1], axis)


def _rounded(rows: Array, hessians: Sequence[Array | None]) -> Rounded:
    """Rows `[directions, rows, features]` of a recurrent layer each by its own Hessian."""
    known = [hessian for hessian in hessians if hessian is not None]
    if len(known) < len(hessians) or not known:
        return round_blocks(rows, BITS, BLOCK_SIZE)
    parts = rows if rows.ndim == 3 else rows[None]
    made = [
        gptq(part, hessian, BITS, BLOCK_SIZE) for part, hessian in zip(parts, known, strict=True)
    ]
    joined = (np.stack(each) for each in zip(*made, strict=True))
    return Rounded(*(each.reshape(*rows.shape[:-1], *each.shape[2:]) for each in joined))

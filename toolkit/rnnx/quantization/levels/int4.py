"""int4: recurrent layers compute with weights of four bits, rounded by GPTQ on calibration data.

The weights stand in blocks of 32, as MatMulNBits takes them; where that does not gain they are kept
so, as int4-store keeps them. All others have eight bits, as at int8-block: most of the error would
come from a readout of four.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from rnnx.quantization import gates
from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.embedding import gather_codes
from rnnx.quantization.forms import Form
from rnnx.quantization.kernels import Blocks
from rnnx.quantization.levels.int4_store import rounding_notes, to_int4
from rnnx.quantization.levels.int8_block import compute_in_blocks
from rnnx.quantization.levels.int8_store import to_int8
from rnnx.quantization.linear import compute_linear
from rnnx.quantization.store import store_weights
from rnnx.quantization.weights import RECURRENT, Weight

# From this hidden_size on a step took less time than in float32, measured on x86 with AVX2.
BREAK_EVEN = {"GRU": 257, "LSTM": 192, "RNN": 257}


def apply(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Compute the recurrent layers of `model` so, and keep all other weights as int8."""
    hessians = given.observed()
    kernel = Blocks(bits=4, block_size=32, hessians=hessians)
    computed = compute_in_blocks(model, kernel, gates.convertible(model, BREAK_EVEN, given.ways))
    # onnxruntime adds products of four bits up in another order for several sequences.
    invariance = "chunks" if computed else "all"
    if given.streaming:  # few frames at a time
        computed += compute_linear(model)
    stored = store_weights(model, lambda weight: _kept(weight, hessians))
    gather_codes(model)
    notes = stored.notes + rounding_notes(hessians)
    return Change(stored.changed + computed, notes, invariance)


def _kept(weight: Weight, hessians: Mapping[str, npt.NDArray[Any]]) -> Form:
    is_recurrent = weight.nodes[0].op_type in RECURRENT
    return to_int4(weight, hessians) if is_recurrent else to_int8(weight)

"""int4: recurrent layers compute with weights of four bits, rounded by GPTQ on calibration data.

The weights stand in blocks of 32, as MatMulNBits takes them; all others are kept so, as int4-store
keeps them.
"""

from __future__ import annotations

import onnx_ir as ir

from rnnx.quantization import gates
from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.kernels import Blocks
from rnnx.quantization.levels import int4_store
from rnnx.quantization.levels.int8_block import compute_in_blocks

# From this hidden_size on a step took less time than in float32, measured on x86 with AVX2.
BREAK_EVEN = {"GRU": 257, "LSTM": 192, "RNN": 257}


def apply(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Compute the recurrent layers of `model` so, and keep all other weights as int4-store does."""
    kernel = Blocks(bits=4, block_size=32, hessians=given.observed())
    computed = compute_in_blocks(model, kernel, gates.convertible(model, BREAK_EVEN, given.ways))
    stored = int4_store.apply(model, given)
    stored.changed += computed
    if computed:
        # onnxruntime adds products of four bits up in another order for several sequences.
        stored.invariance = "chunks"
    return stored

"""int8-block: recurrent and linear layers compute with int8 weights in blocks of 128.

com.microsoft's MatMulNBits scales each frame of each sequence by itself, in blocks: neither chunks
nor neighbours change a bit, which int8 promises for chunks of one sequence only. It is slower than
int8, and over many frames at once slower than float32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import common

from rnnx.quantization import gates
from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.embedding import gather_codes
from rnnx.quantization.kernels import DOMAIN, Blocks
from rnnx.quantization.levels import int8_store
from rnnx.quantization.linear import compute_linear

# From this hidden_size on a step took less time than in float32, measured on x86 with AVX2.
BREAK_EVEN = {"GRU": 257, "LSTM": 192, "RNN": 224}


def apply(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Compute the recurrent layers of `model` so, and keep all other weights as int8."""
    nodes = gates.convertible(model, BREAK_EVEN, given.ways)
    computed = compute_in_blocks(model, Blocks(bits=8, block_size=128), nodes)
    if given.streaming:  # few frames at a time
        computed += compute_linear(model)
    stored = int8_store.apply(model)
    gather_codes(model)
    return Change(changed=stored.changed + computed, notes=stored.notes)


def compute_in_blocks(model: ir.Model, kernel: Blocks, nodes: Sequence[ir.Node]) -> Counter[str]:
    """Compute recurrent nodes so; how many of each operator."""
    computed = Counter(node.op_type for node in nodes)
    for node in nodes:
        gates.convert(node, kernel)
    if nodes:
        model.opset_imports[DOMAIN] = 1
        common.DeduplicateHashedInitializersPass()(model)  # of layers that share weights
    return computed

"""int8: recurrent layers compute in int8, and large linear ones where few frames come at a time.

onnxruntime computes one recurrent operator in int8: LSTM, as com.microsoft's DynamicQuantizeLSTM.
GRU and RNN become gate graphs (`gates`), where they are large enough to gain. Every other layer
keeps its weights as int8-store does.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from rnnx.quantization import gates
from rnnx.quantization.change import NOTHING_GIVEN, Change, Given
from rnnx.quantization.embedding import gather_codes
from rnnx.quantization.kernels import DOMAIN, Rows
from rnnx.quantization.levels import int8_store
from rnnx.quantization.linear import compute_linear
from rnnx.quantization.rows import computing_scales, to_codes
from rnnx.quantization.store import OVERHEAD_BYTES, add_initializer, add_vector, drop_unused
from rnnx.quantization.weights import RECURRENT, constant_array, is_constant

# From this hidden_size on a step in int8 took less time than in float32, measured on x86 with AVX2.
BREAK_EVEN = {"GRU": 160, "RNN": 150}
_FLOAT_INPUTS = 8  # X, W, R, B, sequence_lens, initial_h, initial_c, P; then scales, zero points

# Codes, scales and zero points of a weight, made once for all the nodes that share it.
_Packed = dict[ir.Value, tuple[ir.Value, ir.Value, ir.Value]]


def apply(model: ir.Model, given: Given = NOTHING_GIVEN) -> Change:
    """Compute the layers of `model` in int8 that gain, and keep all other weights as int8."""
    packed: _Packed = {}
    nodes = [node for node in model.graph.all_nodes() if _is_wanted(node, given)]
    for node in nodes:
        _convert(node, packed)
    for weight in packed:
        drop_unused(weight)
    gated = gates.convertible(model, BREAK_EVEN, given.ways)
    computed = Counter(node.op_type for node in gated) + Counter(LSTM=len(nodes))
    for node in gated:
        gates.convert(node, Rows())
    if given.streaming:  # few frames at a time
        computed += compute_linear(model)
    if computed:
        model.opset_imports[DOMAIN] = 1
        common.DeduplicateHashedInitializersPass()(model)  # of layers that share weights
    stored = int8_store.apply(model)
    gather_codes(model)
    notes = _notes(stored.changed, computed)
    return Change(
        changed=stored.changed + computed,
        notes=notes + stored.notes,
        invariance="none" if nodes else "chunks" if gated else "all",
    )


def _is_wanted(node: ir.Node, given: Given) -> bool:
    return given.ways.get(str(node.name), "operator") == "operator" and _is_convertible(node)


def _is_convertible(node: ir.Node) -> bool:
    return (
        node.op_type == "LSTM"
        and node.domain in ("", "ai.onnx")
        and all(is_constant(weight) for weight in node.inputs[1:3])
        and sum(_saved(weight) for weight in node.inputs[1:3]) >= OVERHEAD_BYTES
    )


def _saved(weight: ir.Value | None) -> int:
    """Bytes that int8 saves: three for each value, less a scale and a zero point for each row."""
    directions, rows, features = constant_array(weight).shape
    return int(directions * rows * (3 * features - 5))


def _convert(node: ir.Node, packed: _Packed) -> None:
    """Make an LSTM node a DynamicQuantizeLSTM node, in place."""
    node.resize_inputs(_FLOAT_INPUTS + 4)
    for index in (1, 2):
        weight = node.inputs[index]
        assert weight is not None
        if weight not in packed:
            packed[weight] = _pack(weight)
        codes, scale, zero_point = packed[weight]
        after = _FLOAT_INPUTS + 2 * (index - 1)
        node.replace_input_with(index, codes)
        node.replace_input_with(after, scale)
        node.replace_input_with(after + 1, zero_point)
    node.op_type, node.domain, node.version = "DynamicQuantizeLSTM", DOMAIN, 1
    node.attributes.pop("layout", None)  # onnxruntime loads batch-first LSTMs in neither form


def _pack(weight: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """The codes `[directions, features, 4 * hidden_size]`, transposed as the kernel wants them."""
    graph = weight.graph
    assert graph is not None
    array = constant_array(weight)
    scales = computing_scales(array)
    codes, scale = to_codes(array, scales), scales[..., 0]
    # One for each row, though all are 0: with fewer, the kernel reads past them when bidirectional.
    zero_point = np.zeros(scale.shape, np.int8)
    return (
        add_initializer(graph, f"{weight.name}/packed", codes.transpose(0, 2, 1)),
        add_vector(graph, f"{weight.name}/packed_scale", scale),
        add_initializer(graph, f"{weight.name}/zero_point", zero_point),
    )


def _notes(stored: Counter[str], computed: Counter[str]) -> list[str]:
    notes = []
    recurrent = sorted(stored.keys() & set(RECURRENT))
    others = sorted(stored.keys() - set(RECURRENT))
    if recurrent:
        notes.append(
            f"{', '.join(recurrent)} fell to int8-store, weights kept as int8, computed in float32:"
            f" int8 pays from hidden_size {BREAK_EVEN['GRU']} (GRU) or"
            f" {BREAK_EVEN['RNN']} (RNN) on, with their usual activations."
        )
    if others:
        notes.append(f"{', '.join(others)}: weights kept as int8, computed in float32.")
    if computed["GRU"] or computed["RNN"]:
        notes.append(
            "The int8 GRU and RNN step through their frames one by one: fastest where one frame is"
            " fed at a time, slower than float32 over many at once below hidden_size 512."
        )
    if computed["LSTM"]:
        notes.append(
            "The int8 LSTM scales its activations anew in every call, over all its frames and"
            " sequences, so its results depend a little on chunk length, batch and threads."
        )
    return notes

"""Linear layers computed with small weights, by the operator that scales each frame by itself."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx.quantization.kernels import DOMAIN, Blocks, Site
from rnnx.quantization.store import drop_unused, name_nodes
from rnnx.quantization.weights import constant_array, is_constant

# From this many weights on one frame took less time than in float32, measured on x86 with AVX2.
BREAK_EVEN = 65536
# Of four bits a frame by itself comes out otherwise than among others: chunks would change bits.
_KERNEL = Blocks(bits=8, block_size=128)


def compute_linear(model: ir.Model) -> Counter[str]:
    """Compute the large linear layers of `model` so: MatMul and Gemm with a weight `[in, out]`.

    Over many frames at once this is slower than float32.

    Returns:
        How many were changed, by the operator they had.
    """
    nodes = [node for node in model.graph.all_nodes() if _is_convertible(node)]
    changed = Counter(node.op_type for node in nodes)
    for node in nodes:
        _convert(node)
    if nodes:
        model.opset_imports[DOMAIN] = 1
    return changed


def _is_linear(node: ir.Node) -> bool:
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm"):
        return False
    factors = [node.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    return factors == [1.0, 1.0] and not node.attributes.get_int("transA", 0)


def _is_convertible(node: ir.Node) -> bool:
    """Whether this is a linear layer whose weight is large, and that of such layers only."""
    if not _is_linear(node) or not is_constant(node.inputs[1]):
        return False
    weight = node.inputs[1]
    assert weight is not None
    shape = constant_array(weight).shape
    used_so = all(_is_linear(user) and place == 1 for user, place in weight.uses())
    return used_so and len(shape) == 2 and int(np.prod(shape)) >= BREAK_EVEN


def _convert(node: ir.Node) -> None:
    graph, weight, old = node.graph, node.inputs[1], node.outputs[0]
    assert isinstance(graph, ir.Graph)
    assert weight is not None
    array, x = constant_array(weight), node.inputs[0]
    assert x is not None
    rows = array if node.attributes.get_int("transB", 0) else array.T
    site = Site(Tape(), graph, f"{old.name}.linear")
    new = _KERNEL.product(site, "W", x, rows, np.zeros(len(rows), np.float32))
    if len(node.inputs) == 3 and node.inputs[2] is not None:
        new = site.tape.op("Add", [new, node.inputs[2]])
    name_nodes(site.tape.nodes, site.name)
    ir.convenience.replace_nodes_and_values(graph, node, [node], site.tape.nodes, [old], [new])
    drop_unused(weight)

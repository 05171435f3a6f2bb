"""Embeddings that stay small in memory: codes are gathered first, and only those are widened."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx.quantization.store import name_nodes

# Less memory than this is not worth the few microseconds that three more operators take.
LEAST_BYTES = 1 << 20


def gather_codes(model: ir.Model) -> None:
    """Gather codes and scales from large tables `Cast(codes) * scale`, then multiply.

    The values are the same; onnxruntime does not widen the whole table when it loads the file.

    Args:
        model: one whose weights are stored so; changed in place.
    """
    for node in list(model.graph.all_nodes()):
        table = node.inputs[0].producer() if _is_gather(node) and node.inputs[0] else None
        if table is not None and _is_stored(table):
            _gather_first(node, table)


def _is_gather(node: ir.Node) -> bool:
    return node.op_type == "Gather" and node.domain in ("", "ai.onnx")


def _is_stored(table: ir.Node) -> bool:
    """Whether this is `Cast(codes) * scale` of a large table that is read by Gather only."""
    cast = table.inputs[0].producer() if table.op_type == "Mul" and table.inputs[0] else None
    if cast is None or cast.op_type != "Cast":
        return False
    codes, values = cast.inputs[0], table.outputs[0]
    assert codes is not None
    if codes.const_value is None or 4 * codes.const_value.size < LEAST_BYTES:
        return False
    read_so = all(_is_gather(user) and place == 0 for user, place in values.uses())
    return codes.is_initializer() and read_so and not values.is_graph_output()


def _gather_first(node: ir.Node, table: ir.Node) -> None:
    graph, old, cast = node.graph, node.outputs[0], table.inputs[0]
    assert graph is not None
    assert cast is not None
    tape, widen = Tape(), cast.producer()
    assert widen is not None
    codes, scales = (
        tape.op("Gather", [stored, node.inputs[1]], dict(node.attributes))
        for stored in (widen.inputs[0], table.inputs[1])
    )
    wide = tape.op("Cast", [codes], {"to": ir.DataType.FLOAT.value})
    new = tape.op("Mul", [wide, scales])
    name_nodes(tape.nodes, f"{old.name}.gathered")
    ir.convenience.replace_nodes_and_values(graph, node, [node], tape.nodes, [old], [new])
    if not table.outputs[0].uses() and table.graph is not None:
        table.graph.remove([table, widen], safe=True)

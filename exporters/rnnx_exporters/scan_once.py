"""Takes a Scan over one frame out of its loop: its body, once, in the graph around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from rnnx_exporters.wire_shapes import Shapes


def run_once(graph: ir.Graph, shapes: Shapes) -> bool:
    """Replace every Scan of `graph` that has one frame; whether there was one.

    Args:
        graph: changed in place; the shapes of what is new in it are not known.
        shapes: of its wires.
    """
    scans = [node for node in graph if node.op_type == "Scan" and _has_one_frame(node, shapes)]
    for number, scan in enumerate(scans):
        _unroll(graph, scan, f"scan{number}")
    graph.sort()
    return bool(scans)


def _frames(scan: ir.Node) -> int:
    """At which of the Scan's inputs the frames begin, behind the states."""
    return len(scan.inputs) - scan.attributes["num_scan_inputs"].as_int()


def _has_one_frame(scan: ir.Node, shapes: Shapes) -> bool:
    frames = scan.inputs[_frames(scan) :]
    axes = scan.attributes.get_ints("scan_input_axes") or [0] * len(frames)
    return all(
        value in shapes and shapes[value][axis] == 1
        for value, axis in zip(frames, axes, strict=True)
    )


def _unroll(graph: ir.Graph, scan: ir.Node, name: str) -> None:
    body, states = scan.attributes["body"].as_graph(), _frames(scan)
    _rename(body, name)
    axes = scan.attributes.get_ints("scan_input_axes") or [0] * (len(scan.inputs) - states)
    frames = _reshaped(graph, "Squeeze", scan.inputs[states:], axes, f"{name}.in")
    for inner, outer in zip(body.inputs, (*scan.inputs[:states], *frames), strict=True):
        assert outer is not None
        inner.replace_all_uses_with(outer, replace_graph_outputs=True)
    given, nodes = list(body.outputs), list(body)
    body.outputs.clear()
    for value in list(body.initializers.values()):
        body.initializers.pop(str(value.name))
        graph.register_initializer(value)
    body.remove(nodes)
    graph.extend(nodes)
    axes = scan.attributes.get_ints("scan_output_axes") or [0] * (len(given) - states)
    whole = _reshaped(graph, "Unsqueeze", given[states:], axes, f"{name}.out")
    for old, new in zip(scan.outputs, (*given[:states], *whole), strict=True):
        _replace(graph, old, new)
    graph.remove(scan, safe=True)


def _rename(body: ir.Graph, name: str) -> None:
    """Names are unique in one graph only."""
    values = [*body.initializers.values(), *(value for node in body for value in node.outputs)]
    named = [value for value in values if value.name]
    ir.convenience.rename_values(named, [f"{name}.{value.name}" for value in named])
    for node in body:
        node.name = None  # the graph around it gives one


def _reshaped(
    graph: ir.Graph,
    operator: str,
    values: Sequence[ir.Value | None],
    axes: Sequence[int],
    name: str,
) -> list[ir.Value]:
    """Each value without its axis of one frame, or with it again."""
    made = []
    for number, (value, axis) in enumerate(zip(values, axes, strict=True)):
        place = ir.val(f"{name}{number}.axis", const_value=ir.tensor(np.array([axis])))
        graph.register_initializer(place)
        node = ir.node(operator, [value, place])
        node.outputs[0].name = f"{name}{number}"
        graph.append(node)
        made.append(node.outputs[0])
    return made


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """An output of the graph keeps its name."""
    if old.is_graph_output():
        node = ir.node("Identity", [new])
        graph.append(node)
        new, node.outputs[0].type, node.outputs[0].shape = node.outputs[0], old.type, old.shape
        new.name, old.name = old.name, f"{old.name}.scanned"
    old.replace_all_uses_with(new, replace_graph_outputs=True)

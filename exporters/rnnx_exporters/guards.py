"""What every export must show before it is written: free axes, native nodes, plain weights."""

from __future__ import annotations

import onnx_ir as ir

from rnnx_exporters.describe import TIME, lengths_inputs
from rnnx_exporters.layout import Layout
from rnnx_exporters.tidy import recurrent_nodes
from rnnx_runtime.errors import ExportError

_REPORT = "This is a fault in rnnx or torch.onnx, not in your model; please report it."


def guard(model: ir.Model, layout: Layout, *, layers: int, opset_version: int) -> None:
    """Hold the exported graph against what was asked.

    Args:
        model: the tidied graph.
        layout: the example and its free axes.
        layers: how many layers were called, each of them one native recurrent node; fewer where
            calls are equal, or their results unused.
        opset_version: the opset it must have.

    Raises:
        ExportError: it differs; the message names where.
    """
    _guard_inputs(model, layout)
    _guard_lengths(model, layout)
    _guard_recurrent(model, layers)
    if model.opset_imports.get("") != opset_version:
        raise ExportError(
            f"the graph has opset {model.opset_imports.get('')}, not {opset_version}",
            hint="torch.onnx writes opset 18 and later; leave opset_version out.",
        )


def _guard_inputs(model: ir.Model, layout: Layout) -> None:
    tensors = layout.tensors()
    if len(model.graph.inputs) != len(tensors):
        raise ExportError(
            f"the graph has {len(model.graph.inputs)} inputs for {len(tensors)} tensors",
            hint="An argument the model does not use cannot be exported; leave it out.",
        )
    for value, (_, axes) in zip(model.graph.inputs, tensors, strict=True):
        for axis, name in axes.items():
            if value.shape is None or str(value.shape[axis]).replace(" ", "") != name:
                raise ExportError(
                    f"axis {axis} ({name!r}) of input {value.name!r} is frozen at"
                    f" {value.shape and value.shape[axis]}",
                    hint="Export the nn.Module itself, with this axis in dynamic_shapes.",
                )


def _guard_lengths(model: ir.Model, layout: Layout) -> None:
    """Lengths of a fixed number would drop the sequences beyond it, as torch does."""
    for value in lengths_inputs(model):
        count = value.shape[0] if value.shape else None
        if isinstance(count, int) and layout.sizes.keys() - {TIME}:
            raise ExportError(
                f"the lengths {value.name!r} are of {count} sequences, while the batch is free",
                hint=f"Name their axis as well: dynamic_shapes={{..., {value.name!r}:"
                " {0: 'batch'}}.",
            )


def _guard_recurrent(model: ir.Model, layers: int) -> None:
    nodes = recurrent_nodes(model)
    if not bool(layers) <= len(nodes) <= layers:
        raise ExportError(f"{layers} recurrent layers became {len(nodes)} nodes", hint=_REPORT)
    for node in nodes:
        for value, letter in zip(node.inputs[1:4], "WRB", strict=False):
            if value is not None and not value.is_initializer():
                raise ExportError(
                    f"the weight {letter} of {node.name!r} depends on the inputs",
                    hint="A recurrent layer's weights must not depend on its input.",
                )
        if len(node.inputs) < 6 or node.inputs[5] is None:
            raise ExportError(f"{node.name!r} has no explicit initial state", hint=_REPORT)

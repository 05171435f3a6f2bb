"""Reads a torch.export program (.pt2): its example, its free axes and its recurrent layers."""

from __future__ import annotations

from typing import Any

import torch

from rnnx_exporters.layout import BATCH, Axes
from rnnx_runtime.errors import ExportError

WAY_OUT = "Export the nn.Module itself: its layers become native, and batch and time stay free."


def example_of(program: torch.export.ExportedProgram) -> tuple[Any, ...]:
    """The arguments the program was captured with.

    Raises:
        ExportError: it takes some of them by name.
    """
    args, kwargs = program.example_inputs
    if kwargs:
        raise ExportError(
            f"the program takes keyword arguments: {', '.join(kwargs)}",
            hint="Give them by position: torch.export.export(model, (x, h)).",
        )
    example: tuple[Any, ...] = args
    return example


def free_axes(program: torch.export.ExportedProgram) -> tuple[Axes, ...]:
    """For each input the axes that the program left free; where it is one size, it is the batch."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs = [values.get(str(name)) for name in program.graph_signature.user_inputs]
    shapes = [getattr(value, "shape", ()) for value in inputs]
    symbols = {str(size) for shape in shapes for size in shape if isinstance(size, torch.SymInt)}
    return tuple(
        {
            axis: BATCH if len(symbols) == 1 else str(size)
            for axis, size in enumerate(shape)
            if isinstance(size, torch.SymInt)
        }
        for shape in shapes
    )


def count_layers(program: torch.export.ExportedProgram) -> int:
    """How many native nodes the program's recurrent calls must become.

    Raises:
        ExportError: it calls nn.RNN, which torch.onnx would unroll.
    """
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    targets = [str(node.target).removeprefix("aten.") for node in calls]
    if {"rnn_tanh.input", "rnn_relu.input"} & set(targets):
        raise ExportError("torch.onnx unrolls the nn.RNN of a torch.export program", hint=WAY_OUT)
    recurrent = {"lstm.input", "gru.input"}
    return sum(int(n.args[4]) for n, name in zip(calls, targets, strict=True) if name in recurrent)

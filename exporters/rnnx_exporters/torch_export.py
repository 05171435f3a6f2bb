"""The door: a torch model goes in, an artifact comes out, proven equal before it is written."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
import torch

from rnnx_exporters import artifact
from rnnx_exporters.arguments import record
from rnnx_exporters.capture import Captured, capture, translate
from rnnx_exporters.describe import describe
from rnnx_exporters.guards import guard
from rnnx_exporters.layout import BATCH, Axes, Layout, given, infer
from rnnx_exporters.proof import prove_export
from rnnx_exporters.streaming import write_streaming
from rnnx_exporters.tidy import tidy
from rnnx_runtime.contract import Contract
from rnnx_runtime.errors import ExportError, InputError, NotStreamableError

# The opset torch.onnx writes natively; onnxruntime and every other runtime in use reads it.
OPSET_VERSION = 18
_WAY_OUT = "Export the nn.Module itself: its layers become native, and batch and time stay free."


def export(
    model: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = None,
    streaming: bool = False,
    opset_version: int | None = None,
) -> Contract:
    """Export a torch model to an ONNX artifact with native RNN, GRU and LSTM operators.

    The model is copied and put in eval mode; the caller's is left as it was. The graph is proven
    equal to the model at several batches and lengths before anything is written.

    Args:
        model: the network. An ExportedProgram is taken as it is, with the sizes it froze.
        args: example arguments for `model.forward`; tensors of `[batch, time, features]`, say.
        path: the file to write.
        input_names: names for the graph's inputs; the argument names where left out.
        output_names: names for its outputs; `y`, or `y0`, `y1`, ... where left out.
        dynamic_shapes: the free axes by argument, `{"x": {0: "batch", 1: "time"}}`. The axis named
            `"time"` is the streaming axis. Left out, it is found from the recurrent layers.
        streaming: write a step from chunk to chunk, the states as inputs and outputs.
        opset_version: the ONNX opset, 18 where left out.

    Returns:
        The artifact's contract.

    Raises:
        ExportError: the model cannot be captured, freezes an axis, or the graph differs from it.
        NotStreamableError: `streaming` and the network cannot run frame after frame.
        InputError: an argument does not fit, or the model does not run on `args`.
    """
    if streaming and isinstance(model, torch.export.ExportedProgram):
        raise NotStreamableError(
            "a torch.export program has frozen the length of its recurrent layers", hint=_WAY_OUT
        )
    opset_version = opset_version or OPSET_VERSION
    graph, layout, difference = _graph_of(model, tuple(args), dynamic_shapes, opset_version)
    _name_ports(graph, input_names, output_names)
    contract = describe(graph)
    contract = dataclasses.replace(
        contract,
        source={
            "model": type(model).__name__,
            "torch": torch.__version__,
            "arguments": record(layout.args, contract.inputs),
        },
        checked={"against": "torch", "max_abs_difference": difference},
    )
    if streaming:
        return write_streaming(graph, contract, path)
    contract = artifact.seal(graph, contract)
    artifact.save(graph, path)
    return contract


def _graph_of(
    model: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    dynamic_shapes: Any,
    opset_version: int,
) -> tuple[ir.Model, Layout, float]:
    """The proven offline graph, the layout of its inputs, and how far it is from the model."""
    module: torch.nn.Module
    if isinstance(model, torch.export.ExportedProgram):
        module, args = model.module(), args or _example(model)
        layout = Layout(args, _free_axes(model))
        if dynamic_shapes:
            layout = given(module, args, dynamic_shapes)
        captured = Captured(translate(model, opset_version), _count_layers(model))
    else:
        module = _frozen_copy(model)
        _try(module, args)
        layout = _layout(module, args, dynamic_shapes).traceable()
        captured = capture(module, layout.args, layout.dims(), opset_version)
    graph = captured.model
    tidy(graph, _symbols(graph, layout))
    guard(graph, layout, layers=captured.layers, opset_version=opset_version)
    with torch.no_grad():
        return graph, layout, prove_export(graph, module, layout)


def _frozen_copy(model: torch.nn.Module) -> torch.nn.Module:
    try:
        return copy.deepcopy(model).eval().requires_grad_(False)
    except Exception as error:  # a model may hold anything
        raise ExportError(
            f"the model cannot be copied: {error}",
            hint="Detach tensors that are kept as attributes, and keep no open files or locks.",
        ) from error


def _try(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
    try:
        with torch.no_grad():
            module(*args)
    except Exception as error:  # a model may raise anything
        raise InputError(
            f"the model does not run on the example arguments: {type(error).__name__}: {error}",
            hint="Call model(*args) with them yourself; args is a tuple, one entry an argument.",
        ) from error


def _layout(module: torch.nn.Module, args: tuple[Any, ...], dynamic_shapes: Any) -> Layout:
    if dynamic_shapes is None:
        return infer(module, args)
    return given(module, args, dynamic_shapes)


def _example(program: torch.export.ExportedProgram) -> tuple[Any, ...]:
    args, kwargs = program.example_inputs
    if kwargs:
        raise ExportError(
            f"the program takes keyword arguments: {', '.join(kwargs)}",
            hint="Give them by position: torch.export.export(model, (x, h)).",
        )
    example: tuple[Any, ...] = args
    return example


def _free_axes(program: torch.export.ExportedProgram) -> tuple[Axes, ...]:
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


def _count_layers(program: torch.export.ExportedProgram) -> int:
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    targets = [str(node.target).removeprefix("aten.") for node in calls]
    if {"rnn_tanh.input", "rnn_relu.input"} & set(targets):
        raise ExportError("torch.onnx unrolls the nn.RNN of a torch.export program", hint=_WAY_OUT)
    recurrent = {"lstm.input", "gru.input"}
    return sum(int(n.args[4]) for n, name in zip(calls, targets, strict=True) if name in recurrent)


def _symbols(graph: ir.Model, layout: Layout) -> dict[str, str]:
    """For each symbol torch chose for a free axis, the user's name."""
    return {
        str(value.shape[axis]): name
        for value, (_, axes) in zip(graph.graph.inputs, layout.tensors(), strict=False)
        for axis, name in axes.items()
        if value.shape is not None
    }


def _name_ports(
    graph: ir.Model, input_names: Sequence[str] | None, output_names: Sequence[str] | None
) -> None:
    inputs, outputs = graph.graph.inputs, graph.graph.outputs
    if output_names is None:
        output_names = ["y"] if len(outputs) == 1 else [f"y{i}" for i in range(len(outputs))]
    wanted = [
        *_held("input_names", input_names or [str(value.name) for value in inputs], len(inputs)),
        *_held("output_names", output_names, len(outputs)),
    ]
    if len(set(wanted)) != len(wanted):
        raise InputError(f"two inputs or outputs share a name: {', '.join(wanted)}")
    _free_names(graph, set(wanted))
    for value, name in zip([*inputs, *outputs], wanted, strict=True):
        value.name = name


def _held(what: str, names: Sequence[str], count: int) -> list[str]:
    if len(names) != count:
        raise InputError(f"{what} has {len(names)} names for {count} values")
    if not all(names):
        raise InputError(f"{what} holds an empty name")
    return list(names)


def _free_names(graph: ir.Model, wanted: set[str]) -> None:
    """Rename weights and inner values that stand in the way of the ports' names."""
    inner = [value for node in graph.graph.all_nodes() for value in node.outputs]
    for value in (*graph.graph.initializers.values(), *inner):
        if value.name in wanted:
            ir.convenience.rename_values([value], [f"{value.name}_inner"])

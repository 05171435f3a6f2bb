"""The door: a torch model goes in, an artifact comes out, proven equal before it is written."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch.utils import _pytree as pytree

from rnnx_exporters import artifact
from rnnx_exporters.arguments import record
from rnnx_exporters.assumptions import assumptions
from rnnx_exporters.capture import Captured, capture, quiet, translate
from rnnx_exporters.describe import describe, lengths_inputs
from rnnx_exporters.exported_program import WAY_OUT, count_layers, example_of, free_axes
from rnnx_exporters.guards import guard
from rnnx_exporters.layout import Layout, given, infer
from rnnx_exporters.preparation import frozen_copy, prepared_args, refuse_kept_state
from rnnx_exporters.proof import prove_export
from rnnx_exporters.streaming import write_streaming
from rnnx_exporters.tidy import tidy
from rnnx_runtime.contract import Contract
from rnnx_runtime.errors import InputError, NotStreamableError, RnnxError
from rnnx_runtime.files import writable

# The opset torch.onnx writes natively; onnxruntime and every other runtime in use reads it.
OPSET_VERSION = 18


def export(
    model: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_shapes: Any = None,
    streaming: bool = False,
    chunk: int | None = None,
    opset_version: int | None = None,
) -> Contract:
    """Export a torch model to an ONNX artifact with native RNN, GRU and LSTM operators.

    The model is copied and put in eval mode; the caller's is left as it was. Where it has the
    attributes `sample_rate` (input frames a second) and `labels` (names of the classes along the
    last axis of its first output), the contract tells them. The graph is proven equal to the model
    at several batches and lengths before anything is written.

    Args:
        model: the network. An ExportedProgram is taken as it is, with the sizes it froze.
        args: example arguments for `model.forward`; tensors of `[batch, time, features]`, say.
        path: the file to write.
        input_names: names for the graph's inputs; the argument names where left out.
        output_names: names for its outputs; `y`, or `y0`, `y1`, ... where left out.
        dynamic_shapes: the free axes by argument, `{"x": {0: "batch", 1: "time"}}`. The axis named
            `"time"` is the streaming axis. Left out, it is found from the recurrent layers.
        streaming: write a step from chunk to chunk, the states as inputs and outputs.
        chunk: with `streaming`, how many frames of one sequence every call takes; all shapes are
            numbers then, as some runtimes want them.
        opset_version: the ONNX opset, 18 where left out.

    Returns:
        The artifact's contract.

    Raises:
        ExportError: the model cannot be captured, freezes an axis, or the graph differs from it.
        NotStreamableError: `streaming` and the network cannot run frame after frame.
        InputError: an argument does not fit, or the model does not run on `args`.
        ArtifactError: `path` has no folder, or is one itself.
    """
    writable(path)
    if chunk is not None and not streaming:
        raise InputError("chunk fixes the chunks of a stream", hint="Give streaming=True as well.")
    if streaming and isinstance(model, torch.export.ExportedProgram):
        raise NotStreamableError(
            "a torch.export program has frozen the length of its recurrent layers", hint=WAY_OUT
        )
    opset_version = opset_version or OPSET_VERSION
    graph, layout, difference = graph_of(model, tuple(args), dynamic_shapes, opset_version)
    name_ports(graph, input_names, output_names)
    contract = describe(graph)
    contract = dataclasses.replace(
        contract,
        sample_rate=_sample_rate(model),
        labels=_labels(model),
        source={
            "model": type(model).__name__,
            "torch": torch.__version__,
            "arguments": record(layout.args, contract.inputs),
        },
        checked={"against": "torch", "max_abs_difference": difference},
    )
    if streaming:
        return write_streaming(graph, contract, path, chunk=chunk)
    contract = artifact.seal(graph, contract)
    artifact.save(graph, path)
    return contract


def _sample_rate(model: object) -> float | None:
    rate = getattr(model, "sample_rate", None)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        return None  # an attribute of that name may be anything
    return float(rate)


def _labels(model: object) -> tuple[str, ...] | None:
    labels = getattr(model, "labels", None)
    if not isinstance(labels, list | tuple) or not all(isinstance(name, str) for name in labels):
        return None
    return tuple(labels) or None


def graph_of(
    model: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    dynamic_shapes: Any,
    opset_version: int = OPSET_VERSION,
) -> tuple[ir.Model, Layout, float]:
    """The offline graph of a model, tidied, guarded and proven; as `export` takes its arguments.

    Returns:
        The graph, the layout of its inputs, and how far it is from the model.

    Raises:
        ExportError: the model cannot be captured, freezes an axis, or the graph differs from it.
        InputError: an argument does not fit, or the model does not run on `args`.
    """
    module, captured, layout = _capture(model, args, dynamic_shapes, opset_version)
    graph = captured.model
    names = [str(value.name) for value in graph.graph.inputs]
    symbols = _symbols(graph, layout)
    assumed = {assumption.renamed(symbols) for assumption in captured.assumptions}
    with quiet():
        recognised = tidy(graph, symbols)
    guard(graph, layout, layers=captured.layers + recognised, opset_version=opset_version)
    lengths = lengths_inputs(graph)
    places = [i for i, value in enumerate(graph.graph.inputs) if value in lengths]
    layout = layout.with_lengths(places)
    with torch.no_grad(), quiet():
        difference = prove_export(graph, module, layout, assumed)
        name_ports(graph, names, _output_names(module(*layout.args), names))
    return graph, layout, difference


def _capture(
    model: torch.nn.Module | torch.export.ExportedProgram,
    args: tuple[Any, ...],
    dynamic_shapes: Any,
    opset_version: int,
) -> tuple[torch.nn.Module, Captured, Layout]:
    """The model to hold the graph against, the captured graph, and the layout of its inputs."""
    if isinstance(model, torch.export.ExportedProgram):
        program, args = model.module(), args or example_of(model)
        layout = Layout(args, free_axes(model))
        layout = given(program, args, dynamic_shapes) if dynamic_shapes else layout
        layers, assumed = count_layers(model), assumptions(model)
        return program, Captured(translate(model, opset_version), layers, assumed), layout
    module, args = frozen_copy(model), prepared_args(args)
    _try(module, args)
    layout = _layout(module, args, dynamic_shapes).traceable()
    return module, capture(module, layout, opset_version), layout


def _layout(module: torch.nn.Module, args: tuple[Any, ...], dynamic_shapes: Any) -> Layout:
    if dynamic_shapes is None:
        with quiet():
            return infer(module, args)
    return given(module, args, dynamic_shapes)


def _try(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
    """Refuse a model that does not run on its example, or that keeps state between calls."""
    with quiet():
        try:
            refuse_kept_state(module, args)
        except RnnxError:
            raise
        except Exception as error:  # a model may raise anything
            raise InputError(
                f"the model does not run on the example arguments: {type(error).__name__}: {error}",
                hint="Call model(*args) with them yourself; args holds one entry an argument.",
            ) from error


def _symbols(graph: ir.Model, layout: Layout) -> dict[str, str]:
    """For each symbol torch chose for a free axis, its name.

    A size that depends on values (`u0`) is that of the longest sequence of a packed batch.
    """
    found = sorted({unbacked for value in _outputs(graph) for unbacked in _unbacked(value)})
    longest = {symbol: f"longest{place or ''}" for place, symbol in enumerate(found)}
    return longest | dict(
        _symbol(str(value.shape[axis]), name)
        for value, (_, axes) in zip(graph.graph.inputs, layout.tensors(), strict=False)
        for axis, name in axes.items()
        if value.shape is not None and not str(value.shape[axis]).isdecimal()
    )


def _symbol(size: str, name: str) -> tuple[str, str]:
    """Torch's symbol in the size of an axis, and what it is; `4*s60` where 4 divides the size."""
    multiple, _, symbol = size.rpartition("*")
    rate, _, plain = name.rpartition("*")
    whole = multiple == rate  # 160*s60 is 160*time
    return symbol, plain if whole else f"({plain} // {multiple})" if multiple else plain


def _outputs(graph: ir.Model) -> Iterator[ir.Value]:
    return (value for node in graph.graph.all_nodes() for value in node.outputs)


def _unbacked(value: ir.Value) -> list[str]:
    return re.findall(r"\bu\d+\b", " ".join(map(str, value.shape or ())))


def _output_names(result: Any, inputs: Sequence[str]) -> list[str]:
    """`y`, or `y0`, `y1`, ...; the keys where the model returns a dict or dataclass."""
    paths = [
        [str(key.key) for key in path if isinstance(key, pytree.MappingKey)]
        for path, leaf in pytree.tree_flatten_with_path(result)[0]
        if isinstance(leaf, torch.Tensor)
    ]
    numbered = ["y"] if len(paths) == 1 else [f"y{place}" for place in range(len(paths))]
    keyed = ["_".join(path) for path in paths]
    names = [
        key if key and keyed.count(key) == 1 else number
        for key, number in zip(keyed, numbered, strict=True)
    ]
    return [f"{name}_out" if name in inputs else name for name in names]


def name_ports(
    graph: ir.Model, input_names: Sequence[str] | None, output_names: Sequence[str] | None
) -> None:
    """Name the graph's inputs and outputs; those left out keep their names.

    Raises:
        InputError: there are too few or too many names, or two are the same.
    """
    inputs, outputs = graph.graph.inputs, graph.graph.outputs
    wanted = [
        *_held("input_names", input_names or [str(value.name) for value in inputs], len(inputs)),
        *_held(
            "output_names", output_names or [str(value.name) for value in outputs], len(outputs)
        ),
    ]
    if len(set(wanted)) != len(wanted):
        raise InputError(f"two inputs or outputs share a name: {', '.join(wanted)}")
    _rename(graph, [*inputs, *outputs], wanted)


def _held(what: str, names: Sequence[str], count: int) -> list[str]:
    if len(names) != count:
        raise InputError(f"{what} has {len(names)} names for {count} values")
    if not all(names):
        raise InputError(f"{what} holds an empty name")
    return list(names)


def _rename(graph: ir.Model, values: Sequence[ir.Value], names: Sequence[str]) -> None:
    """Name values; weights and inner values that have the names now get others."""
    inner = [value for node in graph.graph.all_nodes() for value in node.outputs]
    for value in (*graph.graph.initializers.values(), *inner):
        if value.name in names:
            ir.convenience.rename_values([value], [f"{value.name}_inner"])
    for value, name in zip(values, names, strict=True):
        value.name = name

"""The door for encoder-decoders: encoder and step become two graphs beside one contract.

The graphs take and give memory and state flat and batch first, however the model nests them.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import Tensor

from rnnx_exporters import artifact
from rnnx_exporters.capture import quiet
from rnnx_exporters.describe import describe
from rnnx_exporters.layout import BATCH, TIME, Axes, Layout
from rnnx_exporters.preparation import frozen_copy
from rnnx_exporters.seq2seq_folder import GREEDY, replacing_folder
from rnnx_exporters.seq2seq_loop import greedy_graph
from rnnx_exporters.seq2seq_nesting import Nest, find_nest
from rnnx_exporters.seq2seq_proof import prove_generation, prove_loop
from rnnx_exporters.torch_export import graph_of, name_ports
from rnnx_runtime.errors import ExportError, InputError
from rnnx_runtime.files import replacing, sha256_of_file
from rnnx_runtime.seq2seq import (
    CONTRACT,
    ENCODER,
    STEP,
    Seq2Seq,
    Seq2SeqContract,
    tensor_names,
)

_METHODS = (
    "The model needs encode(src, lengths) -> (memory, state) and"
    " step(token, state, memory) -> (logits, state)."
)

_EXAMPLE = "Give (src, lengths): a tensor [batch, time, ...], and int64 [batch], each 1 to time."


def export_seq2seq(
    model: torch.nn.Module,
    example: tuple[Tensor, Tensor],
    folder: str | os.PathLike[str],
    *,
    start: int,
    end: int,
    max_length: int,
    single_file: bool = False,
) -> Seq2SeqContract:
    """Export an encoder-decoder to a folder that `rnnx.Seq2Seq` runs.

    The model has two methods, and is copied and put in eval mode:

        encode(src, lengths) -> (memory, state)
        step(token, state, memory) -> (logits, state)

    src is [batch, time] or [batch, time, ...], lengths and token are int64 [batch], logits
    [batch, vocabulary]. memory and state are tensors, nested in tuples, lists and dicts as they
    may be; each has one axis that counts the batch.

    Both graphs, and the ids they generate together, are proven equal to the model's at several
    batches and ragged lengths before anything is written.

    Args:
        model: the network.
        example: src and lengths.
        folder: the folder to write; a new one, an empty one, or one with an earlier export.
        start, end: the ids that begin and end a sequence.
        max_length: the most ids to generate, where `Seq2Seq.generate` is not told otherwise.
        single_file: write `greedy.onnx` too: the greedy loop as one graph, from src and lengths to
            ids int64 [batch, steps], padded with `end`, and scores float32 [batch].

    Returns:
        The folder's contract.

    Raises:
        ExportError: the model cannot be captured, freezes an axis, or the graphs differ from it.
        InputError: an argument does not fit.
        ArtifactError: the folder holds something else.
    """
    _hold_integers(start=start, end=end, max_length=max_length)
    module, layout = frozen_copy(model), _layout(example)
    with replacing_folder(folder) as beside, torch.no_grad(), quiet():
        encoder, graphs, contract = _captured(module, layout, start, end, max_length)
        contract = _write_pair(beside, graphs, contract)
        runner = Seq2Seq(beside)
        difference = prove_generation(module, encoder, runner, layout)
        if single_file:
            _write_graph(beside / GREEDY, greedy_graph(*graphs, contract))
            prove_loop(beside / GREEDY, encoder, runner, layout)
        checked = {"against": "torch", "max_abs_difference": difference}
        contract = dataclasses.replace(contract, checked=checked)
        _write_contract(beside, contract)
    return contract


class _Encoder(torch.nn.Module):
    """`encode` as a module, memory and state flat and batch first."""

    def __init__(self, model: torch.nn.Module, memory: Nest, state: Nest) -> None:
        super().__init__()
        self.model, self.memory, self.state = model, memory, state

    def forward(self, src: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        memory, state = _method(self.model, "encode")(src, lengths)
        return (*self.memory.flatten(memory), *self.state.flatten(state))


class _Step(torch.nn.Module):
    """`step` as a module, memory and state flat and batch first."""

    def __init__(self, model: torch.nn.Module, memory: Nest, state: Nest) -> None:
        super().__init__()
        self.model, self.memory, self.state = model, memory, state

    def forward(
        self, token: Tensor, state: list[Tensor], memory: list[Tensor]
    ) -> tuple[Tensor, ...]:
        step = _method(self.model, "step")
        logits, after = step(token, self.state.nest(state), self.memory.nest(memory))
        return (logits, *self.state.flatten(after))


def _method(model: torch.nn.Module, name: str) -> Callable[..., Any]:
    method = getattr(model, name, None)
    if not callable(method):
        raise ExportError(f"the model has no method {name!r}", hint=_METHODS)
    bound: Callable[..., Any] = method
    return bound


def _layout(example: Any) -> Layout:
    """The example and its free axes.

    Raises:
        InputError: it is not src and lengths.
    """
    if not isinstance(example, tuple | list) or len(example) != 2:
        raise InputError("the example is not a pair", hint=_EXAMPLE)
    src, lengths = example
    if not isinstance(src, Tensor) or src.dim() < 2 or not src.numel():
        raise InputError("the example's src is not a tensor [batch, time, ...]", hint=_EXAMPLE)
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64:
        raise InputError("the example's lengths are not an int64 tensor", hint=_EXAMPLE)
    if lengths.shape != src.shape[:1] or not 1 <= lengths.min() <= lengths.max() <= src.shape[1]:
        raise InputError(
            f"the example's lengths {lengths.tolist()} do not fit src of shape {list(src.shape)}",
            hint=_EXAMPLE,
        )
    return Layout((src, lengths), ({0: BATCH, 1: TIME}, {0: BATCH}), frozenset({1})).traceable()


def _captured(
    module: torch.nn.Module, layout: Layout, start: int, end: int, max_length: int
) -> tuple[_Encoder, tuple[ir.Model, ir.Model], Seq2SeqContract]:
    """The encoder as a module, the graphs of encoder and step, and their contract."""
    memory, state = _nests(module, layout)
    encoder, step = _Encoder(module, memory, state), _Step(module, memory, state)
    arguments = _step_arguments(encoder, layout, start)
    contract = Seq2SeqContract(
        memory=tensor_names("m", len(memory.paths)),
        states=tensor_names("s", len(state.paths)),
        vocabulary_size=_vocabulary_size(step, arguments, end),
        start=start,
        end=end,
        max_length=max_length,
    )
    graphs = (
        _graph(encoder, layout.args, layout.axes),
        _graph(step, arguments, ({0: BATCH}, state.axes, memory.axes)),
    )
    _name_axes(graphs[0].graph.outputs, memory.axes + state.axes)
    name_ports(graphs[0], ("src", "lengths"), contract.memory + contract.states)
    name_ports(graphs[1], contract.step_inputs, contract.step_outputs)
    return encoder, graphs, contract


def _name_axes(values: Sequence[ir.Value], axes: Sequence[Axes]) -> None:
    """Name the sizes that are those of the longest source: `memory_time`, say.

    The longest source may be shorter than `time`, so that name is not theirs.
    """
    for value, names in zip(values, axes, strict=True):
        assert value.shape is not None  # torch gives every value of a main graph its shape
        for axis, name in names.items():
            if re.search(r"\blongest\d*\b", str(value.shape[axis])):
                value.shape[axis] = f"memory_{name}"


def _nests(module: torch.nn.Module, layout: Layout) -> tuple[Nest, Nest]:
    """How memory and state are nested, told from one source and some frames more."""
    changes: tuple[dict[str, int], ...] = (
        {},
        {BATCH: layout.sizes[BATCH] + 1},
        {TIME: 2 * layout.sizes[TIME] + 1},
    )
    encoded = [_encode(module, *layout.resized(sizes).args) for sizes in changes]
    memories, states = zip(*encoded, strict=True)
    names: dict[tuple[int, int], str] = {}
    nests = find_nest("memory", memories, names), find_nest("state", states, names)
    if not nests[0].paths + nests[1].paths:
        raise ExportError("encode gives neither memory nor state", hint=_METHODS)
    return nests


def _encode(module: torch.nn.Module, src: Tensor, lengths: Tensor) -> tuple[Any, Any]:
    encode = _method(module, "encode")
    try:
        memory, state = encode(src, lengths)
    except Exception as error:  # the user's code may raise anything
        raise ExportError(
            f"encode fails on src of shape {list(src.shape)} with lengths {lengths.tolist()}:"
            f" {type(error).__name__}: {error}",
            hint=_METHODS,
        ) from error
    return memory, state


def _step_arguments(
    encoder: _Encoder, layout: Layout, start: int
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Token, state and memory of the first step of the example."""
    token = torch.full((layout.sizes[BATCH],), start)
    memory, state = _encode(encoder.model, *layout.args)
    return token, encoder.state.flatten(state), encoder.memory.flatten(memory)


def _vocabulary_size(
    step: _Step, arguments: tuple[Tensor, list[Tensor], list[Tensor]], end: int
) -> int:
    """The width of the logits of the first step, which must give a state like the one it took."""
    try:
        logits, *after = step(*arguments)
    except ExportError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ExportError(
            f"step fails on the first token: {type(error).__name__}: {error}", hint=_METHODS
        ) from error
    token, before, _ = arguments
    _hold_logits(logits, len(token), end)
    for path, taken, given in zip(step.state.paths, before, after, strict=True):
        _hold_state(f"state{path}", taken, given)
    return int(logits.shape[1])


def _hold_logits(logits: Tensor, batch: int, end: int) -> None:
    if logits.dim() != 2 or len(logits) != batch or logits.shape[1] < 2:
        raise ExportError(
            f"step gives logits of shape {list(logits.shape)}, not [batch, vocabulary]",
            hint=_METHODS,
        )
    if end >= logits.shape[1]:
        raise InputError(
            f"end is {end}, but there are {logits.shape[1]} ids",
            hint="Give the id of the vocabulary that ends a sequence.",
        )


def _hold_state(name: str, taken: Tensor, given: Tensor) -> None:
    if (taken.shape, taken.dtype) != (given.shape, given.dtype):
        raise ExportError(
            f"step takes {name} as {taken.dtype} of shape {list(taken.shape)} and returns it as"
            f" {given.dtype} of shape {list(given.shape)} (batch first)",
            hint="A state keeps its shape and dtype from step to step.",
        )


def _hold_integers(**values: int) -> None:
    for name, value in values.items():
        least = 1 if name == "max_length" else 0
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name} is {value!r}; it must be an integer of at least {least}")


def _graph(module: torch.nn.Module, args: tuple[Any, ...], axes: Any) -> ir.Model:
    graph, _, _ = graph_of(module, args, axes)
    common.OutputFixPass()(graph)  # memory may be an input as it is, or the same tensor as a state
    return graph


def _write_pair(
    folder: Path, graphs: tuple[ir.Model, ir.Model], contract: Seq2SeqContract
) -> Seq2SeqContract:
    """Write both graphs and the contract with their fingerprints."""
    names = (ENCODER, STEP)
    for name, graph in zip(names, graphs, strict=True):
        _write_graph(folder / name, graph)
    fingerprints = {name: sha256_of_file(folder / name) for name in names}
    contract = dataclasses.replace(contract, fingerprints=fingerprints)
    _write_contract(folder, contract)
    return contract


def _write_graph(path: Path, graph: ir.Model) -> None:
    contract = describe(graph)
    ports = tuple(
        dataclasses.replace(port, counts_frames=port.name == "lengths") for port in contract.inputs
    )
    source = {"torch": torch.__version__}
    artifact.seal(graph, dataclasses.replace(contract, inputs=ports, source=source))
    artifact.save(graph, path)


def _write_contract(folder: Path, contract: Seq2SeqContract) -> None:
    with replacing(folder / CONTRACT) as beside:
        beside.write_text(contract.to_json(), encoding="utf-8")

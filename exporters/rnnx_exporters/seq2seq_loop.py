"""Joins encoder and step to one graph: greedy decoding as an ONNX Loop, the step its body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common
from onnx_ir.tape import Tape

from rnnx_exporters.layout import BATCH
from rnnx_runtime.seq2seq import Seq2SeqContract

_FLOAT, _INT64, _BOOL = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.BOOL


def greedy_graph(encoder: ir.Model, step: ir.Model, contract: Seq2SeqContract) -> ir.Model:
    """One graph from src and lengths to ids [batch, steps] and scores [batch].

    The loop ends when every row has, or after `max_length` steps. Rows that ended before the last
    are filled with `end`.

    Args:
        encoder, step: the two graphs, their inputs and outputs named as the contract says.
        contract: names, `start`, `end` and `max_length`.
    """
    model, body = encoder.clone(), step.clone().graph
    graph = model.graph
    given = {str(value.name): value for value in graph.outputs}
    _make_body(body, given, contract)
    tape = Tape(graph)
    _, _, scores, *_, ids = _loop(
        tape, body, graph.inputs[1], [given[name] for name in contract.states], contract
    )
    rows = tape.op("Transpose", [ids], {"perm": [1, 0]})
    outputs = [_typed(rows, "ids", _INT64, BATCH, "steps"), _typed(scores, "scores", _FLOAT, BATCH)]
    graph.outputs[:] = outputs
    _share_names_and_weights(model)
    return model


def _loop(
    tape: Tape,
    body: ir.Graph,
    lengths: ir.Value,
    states: Sequence[ir.Value],
    contract: Seq2SeqContract,
) -> Sequence[ir.Value]:
    """The outputs of the Loop: token, ended, scores and states, and the ids of all steps."""
    batch = tape.op("Shape", [lengths])
    starts = [
        tape.op("Expand", [_constant(tape, value), batch])
        for value in (np.int64(contract.start), np.bool_(False), np.float32(0))
    ]
    limits = [_constant(tape, np.int64(contract.max_length)), _constant(tape, np.bool_(True))]
    inputs = [*limits, *starts, *states]
    return tape.op_multi_out(
        "Loop", inputs, {"body": body}, num_outputs=len(inputs) - 1, name="greedy"
    )


def _make_body(body: ir.Graph, memory: Mapping[str, ir.Value], contract: Seq2SeqContract) -> None:
    """Turn the step's graph into one turn of the loop, which reads memory where it stands."""
    inputs = {str(value.name): value for value in body.inputs}
    for name in contract.memory:
        ir.convenience.replace_all_uses_with(inputs[name], memory[name])
    states = [inputs[f"{name}_in"] for name in contract.states]
    turn = _typed(ir.Value(), "turn", _INT64), _typed(ir.Value(), "goes_on_in", _BOOL)
    ended = _typed(ir.Value(), "ended_in", _BOOL, BATCH)
    scores = _typed(ir.Value(), "scores_in", _FLOAT, BATCH)
    body.inputs[:] = [*turn, inputs["token"], ended, scores, *states]
    logits, *states = body.outputs
    goes_on, *carried, ids = _choose(Tape(body), logits, ended, scores, contract.end)
    body.outputs[:] = [goes_on, *carried, *states, ids]


def _choose(
    tape: Tape, logits: ir.Value, ended: ir.Value, scores: ir.Value, end_id: int
) -> list[ir.Value]:
    """Whether to go on, the next token, ended and scores, and the token again, to be kept."""
    end, axis = _constant(tape, np.int64(end_id)), _constant(tape, np.array([1]))
    best = tape.op("ArgMax", [logits], {"axis": 1, "keepdims": 0})
    log_probs = tape.op("LogSoftmax", [logits], {"axis": 1})
    places = tape.op("Unsqueeze", [best, axis])
    gained = tape.op("GatherElements", [log_probs, places], {"axis": 1})
    gained = tape.op("Squeeze", [gained, axis])
    gained = tape.op("Where", [ended, _constant(tape, np.float32(0)), gained])
    token = tape.op("Where", [ended, end, best])
    ended = tape.op("Or", [ended, tape.op("Equal", [token, end])])
    live = tape.op("Cast", [tape.op("Not", [ended])], {"to": ir.DataType.INT32})
    any_live = tape.op("ReduceMax", [live], {"keepdims": 0})
    return [
        _typed(tape.op("Cast", [any_live], {"to": _BOOL}), "goes_on", _BOOL),
        _typed(token, "next_token", _INT64, BATCH),
        _typed(ended, "ended", _BOOL, BATCH),
        _typed(tape.op("Add", [scores, gained]), "scores_out", _FLOAT, BATCH),
        _typed(tape.op("Identity", [token]), "kept_token", _INT64, BATCH),
    ]


def _share_names_and_weights(model: ir.Model) -> None:
    """A subgraph sees the names around it, so none may be met twice; nor may a weight."""
    common.NameFixPass()(model)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    common.DeduplicateInitializersPass()(model)


def _constant(tape: Tape, value: np.generic | np.ndarray) -> ir.Value:
    return tape.op("Constant", [], {"value": ir.tensor(np.asarray(value))})


def _typed(value: ir.Value, name: str, dtype: ir.DataType, *dims: str) -> ir.Value:
    value.name, value.shape, value.type = name, ir.Shape(dims), ir.TensorType(dtype)
    return value

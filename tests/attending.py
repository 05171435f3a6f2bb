"""A small encoder-decoder with attention, by hand: ONNX files from onnx alone, and numpy."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser

from rnnx_runtime import Contract, Port
from rnnx_runtime.contract import METADATA_KEY

SOURCES, VOCABULARY, HIDDEN = 7, 5, 3
START, END = 0, 2

_ENCODER = """
<ir_version: 10, opset_import: ["" : 18]>
encoder (int64[batch, time] src, int64[batch] lengths)
    => (float[batch, time, 3] m000, bool[batch, time] m001, float[batch, 3] s000)
<int64 zero = {0}, int64 one = {1}, int64[1] axis1 = {1}, int64[1] axis2 = {2}> {
    m000 = Gather (table, src)
    shape = Shape <start = 1, end = 2> (src)
    time = Squeeze (shape)
    frames = Range (zero, time, one)
    column = Unsqueeze (lengths, axis1)
    m001 = Less (frames, column)
    mask = Cast <to = 1> (m001)
    mask3 = Unsqueeze (mask, axis2)
    masked = Mul (m000, mask3)
    s000 = ReduceSum <keepdims = 0> (masked, axis1)
}
"""
_STEP = """
<ir_version: 10, opset_import: ["" : 18]>
step (int64[batch] token, float[batch, 3] s000_in, float[batch, time, 3] m000,
      bool[batch, time] m001)
    => (float[batch, 5] logits, float[batch, 3] s000_out)
<int64[1] axis1 = {1}, int64[1] axis2 = {2}, float low = {-1e9}> {
    query = Unsqueeze (s000_in, axis1)
    products = Mul (m000, query)
    energies = ReduceSum <keepdims = 0> (products, axis2)
    masked = Where (m001, energies, low)
    weights = Softmax <axis = 1> (masked)
    weights3 = Unsqueeze (weights, axis2)
    weighted = Mul (m000, weights3)
    context = ReduceSum <keepdims = 0> (weighted, axis1)
    before = MatMul (s000_in, recurrent)
    input = Gather (embedding, token)
    sum = Add (context, before)
    all = Add (sum, input)
    s000_out = Tanh (all)
    logits = MatMul (s000_out, head)
}
"""
_SHAPES = {
    "table": (SOURCES, HIDDEN),
    "recurrent": (HIDDEN, HIDDEN),
    "embedding": (VOCABULARY, HIDDEN),
    "head": (HIDDEN, VOCABULARY),
}

ENCODER_PORTS = (
    (
        Port("src", "int64", ("batch", "time"), 0, 1, num_embeddings=SOURCES),
        Port("lengths", "int64", ("batch",), 0, counts_frames=True),
    ),
    (
        Port("m000", "float32", ("batch", "time", HIDDEN), 0, 1),
        Port("m001", "bool", ("batch", "time"), 0, 1),
        Port("s000", "float32", ("batch", HIDDEN), 0),
    ),
)
STEP_PORTS = (
    (
        Port("token", "int64", ("batch",), 0, num_embeddings=VOCABULARY),
        Port("s000_in", "float32", ("batch", HIDDEN), 0),
        Port("m000", "float32", ("batch", "time", HIDDEN), 0, 1),
        Port("m001", "bool", ("batch", "time"), 0, 1),
    ),
    (
        Port("logits", "float32", ("batch", VOCABULARY), 0),
        Port("s000_out", "float32", ("batch", HIDDEN), 0),
    ),
)


def weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in _SHAPES.items()}


def write_folder(folder: Path, values: dict[str, np.ndarray], **changes: Any) -> dict[str, Any]:
    """Write the three files; `changes` to the contract, a value of None leaves a field out."""
    folder.mkdir(exist_ok=True)
    _write_graph(folder / "encoder.onnx", _ENCODER, values, *ENCODER_PORTS)
    _write_graph(folder / "step.onnx", _STEP, values, *STEP_PORTS)
    record = {
        "version": 1,
        "memory": ["m000", "m001"],
        "states": ["s000"],
        "start": START,
        "end": END,
        "max_length": 6,
        "vocabulary_size": VOCABULARY,
        "fingerprints": fingerprints(folder),
        "checked": {},
    } | changes
    record = {name: value for name, value in record.items() if value is not None}
    (folder / "contract.json").write_text(json.dumps(record))
    return record


def fingerprints(folder: Path) -> dict[str, str]:
    names = ("encoder.onnx", "step.onnx")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def log_probs(
    values: dict[str, np.ndarray], source: list[int]
) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Of the next id after a prefix, in float64, for one source alone."""
    table, recurrent, embedding, head = (values[name].astype(np.float64) for name in _SHAPES)

    @functools.cache
    def after(prefix: tuple[int, ...]) -> np.ndarray:
        memory = table[source]
        state = memory.sum(0)
        for token in (START, *prefix):
            exps = np.exp(memory @ state - (memory @ state).max())
            state = np.tanh(exps / exps.sum() @ memory + state @ recurrent + embedding[token])
        logits = state @ head
        return logits - np.log(np.exp(logits).sum())

    return after


def _write_graph(
    path: Path,
    text: str,
    values: dict[str, np.ndarray],
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
) -> None:
    model = parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in values.items() if name in used
    )
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, Contract(inputs=inputs, outputs=outputs).to_json()
    onnx.save(model, path)

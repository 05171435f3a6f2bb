"""Torch networks to export, and plain onnxruntime and torch to hold the artifacts against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import torch
from onnx import parser
from torch import Tensor, nn

import rnnx

Array = npt.NDArray[Any]

ATOL = 1e-5
# Sizes of `x` [batch, time, 4], cut up as exporters do.
SIZES = """
    s = Shape(x)  zero = Constant<value_ints=[0]>()  one = Constant<value_ints=[1]>()
    two = Constant<value_ints=[2]>()  b = Gather(s, zero)  t = Gather(s, one)
"""
# A GRU's input and weights.
GRU = """
    xt = Transpose<perm=[1,0,2]>(x)  shape = Constant<value_ints=[1,9,4]>()
    shape_r = Constant<value_ints=[1,9,3]>()
    w = ConstantOfShape<value=float[1] {0.3}>(shape)
    r = ConstantOfShape<value=float[1] {-0.2}>(shape_r)
"""
OPERATORS = {"rnn_tanh": "RNN", "rnn_relu": "RNN", "gru": "GRU", "lstm": "LSTM"}


def recurrent(kind: str, features: int, hidden_size: int, **options: Any) -> nn.RNNBase:
    """One of torch's recurrent modules by the name of its function, `rnn_relu` say."""
    if kind.startswith("rnn"):
        options["nonlinearity"] = kind.removeprefix("rnn_")
    layer: nn.RNNBase = getattr(nn, OPERATORS[kind])(features, hidden_size, **options)
    return layer


class Network(nn.Module):
    """Named parts under a forward that is given: `compute(parts, x)`."""

    def __init__(self, compute: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.compute = compute

    def forward(self, x: Tensor) -> Any:
        return self.compute(self.parts, x)


def torch_run(module: nn.Module, *args: Any) -> list[Array]:
    """All outputs of the module in eval mode, flat, in order."""
    training = module.training
    with torch.no_grad():
        outputs = flat(module.eval()(*args))
    module.train(training)
    return [output.numpy() for output in outputs]


def plain_run(path: Path, *args: Any) -> list[Array]:
    """All outputs of the file in onnxruntime as it comes, without rnnx."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    arrays = [tensor.numpy() for tensor in flat(args)]
    results: list[Array] = session.run(None, dict(zip(names, arrays, strict=True)))
    return results


def flat(values: Any) -> list[Tensor]:
    """The tensors of nested tuples, in order."""
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in flat(value)]


def hold(actual: list[Array], expected: list[Array]) -> None:
    """Every array equal in shape and dtype, and within 1e-5."""
    for found, wanted in zip(actual, expected, strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ATOL)


def operators(path: Path) -> list[str]:
    """The operators of the file's graph, one for each node."""
    return [node.op_type for node in onnx.load(path).graph.node]


def dims(values: Any) -> list[tuple[int | str, ...]]:
    """The shapes of a graph's inputs or outputs; free axes by name."""
    return [
        tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in values
    ]


def save_text(path: Path, inputs: str, outputs: str, body: str) -> Path:
    """A graph in onnx's own text; two spaces stand for a new line."""
    head = '<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>'
    lines = "\n".join(line.strip() for line in body.replace("  ", "\n").splitlines())
    onnx.save(parser.parse_model(f"{head} g ({inputs}) => ({outputs}) {{ {lines} }}"), path)
    return path


def hold_chunks(src: Path, dst: Path, chunks: Sequence[int] = (1, 4, 2), batch: int = 2) -> None:
    """The stream of `dst`, fed in chunks and flushed, against plain onnxruntime over all of it."""
    contract = rnnx.load_contract(dst)
    port, rng = contract.inputs[0], np.random.default_rng(sum(chunks))
    assert port.time_axis is not None
    x = rng.normal(size=port.shape(batch=batch, frames=sum(chunks))).astype(port.dtype)
    stream = rnnx.Stream(dst, batch=batch if port.batch_axis is not None else 1)
    parts = [stream.feed(part) for part in np.split(x, np.cumsum(chunks)[:-1], port.time_axis)]
    parts.append(stream.flush())
    whole = plain_run(src, torch.from_numpy(x))
    for output, expected in zip(contract.outputs, whole, strict=True):
        values = [part[output.name] if isinstance(part, dict) else part for part in parts]
        np.testing.assert_allclose(_joined(values, output), expected, rtol=0, atol=ATOL)


def _joined(values: Sequence[Array], port: rnnx.Port) -> Array:
    return values[-1] if port.time_axis is None else np.concatenate(values, port.time_axis)

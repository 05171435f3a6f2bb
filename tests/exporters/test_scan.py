"""rnnx.scan: a Python loop in torch, a Scan with a free length in an artifact."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import rnnx

FEATURES, HIDDEN = 3, 4
SIZES = ((3, 7), (1, 1), (4, 100))
DYNAMIC = {0: "batch", 1: "time"}


def looped(step: Callable[..., Any], state: Any, x: Any, dim: int) -> tuple[Any, Any]:
    """What rnnx.scan says it is, written out."""
    leaves = pytree.tree_leaves(x)
    outputs = []
    for t in range(leaves[0].shape[dim]):
        state, y = step(state, pytree.tree_map(lambda leaf, t=t: leaf.select(dim, t), x))
        outputs.append(pytree.tree_leaves(y))
    return state, [torch.stack(ys, dim) for ys in zip(*outputs, strict=True)]


def assert_equal_and_gradients_too(step: NestedStep, state: Any, x: Any, dim: int) -> None:
    given = pytree.tree_leaves((state, x))
    for leaf in given:
        leaf.requires_grad_()
    actual = pytree.tree_leaves(rnnx.scan(step, state, x, dim=dim))
    expected = pytree.tree_leaves(looped(step, state, x, dim))
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)
    gradients = [
        torch.autograd.grad(sum((y * y).sum() for y in ys), [*given, *step.weights])
        for ys in (actual, expected)
    ]
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


class NestedStep:
    """Two inputs, a state ((a, b), c), three outputs."""

    def __init__(self) -> None:
        self.weights = [torch.randn(FEATURES, HIDDEN, requires_grad=True) for _ in range(2)]

    def __call__(self, state: Any, frame: Any) -> Any:
        ((a, b), c), (x, y) = state, frame
        a = torch.tanh(x @ self.weights[0] + a)
        b = torch.sigmoid(y @ self.weights[1] - b) * a
        return ((a, b), a + b + c), (a, (b, a * c))


@pytest.mark.parametrize("dim", [0, 1])
def test_nested_states_inputs_and_outputs_are_a_python_loop(dim: int) -> None:
    torch.manual_seed(dim)
    shape = (5, 2, FEATURES) if dim == 0 else (2, 5, FEATURES)
    state = ((torch.randn(2, HIDDEN), torch.randn(2, HIDDEN)), torch.randn(2, HIDDEN))
    x = (torch.randn(shape), torch.randn(shape))
    assert_equal_and_gradients_too(NestedStep(), state, x, dim)


class CellStep:
    def __init__(self, cell: Any) -> None:
        self.cell = cell

    def __call__(self, state: Any, frame: Tensor) -> Any:
        state = self.cell(frame, state)
        return state, state[0] if isinstance(state, tuple) else state


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("dim", [0, 1])
def test_a_cell_given_as_the_step_is_a_loop_over_the_cell(cell: Any, dim: int) -> None:
    torch.manual_seed(0)
    layer = cell(FEATURES, HIDDEN)
    h = torch.randn(2, HIDDEN)
    state = (h, torch.randn(2, HIDDEN)) if cell is nn.LSTMCell else h
    x = torch.randn((5, 2, FEATURES) if dim == 0 else (2, 5, FEATURES))
    actual = pytree.tree_leaves(rnnx.scan(layer, state, x, dim=dim))
    expected = pytree.tree_leaves(looped(CellStep(layer), state, x, dim))
    for a, b in zip(actual, expected, strict=True):
        assert torch.equal(a, b)


def test_no_frames_and_states_that_grow_are_refused() -> None:
    with pytest.raises(rnnx.InputError, match="frames along axis 1"):
        rnnx.scan(lambda h, x: (h, h), torch.zeros(2, 3), torch.zeros(2, 0, 3))
    with pytest.raises(rnnx.InputError, match="shapes"):
        rnnx.scan(lambda h, x: (torch.cat([h, x], 1), h), torch.zeros(2, 3), torch.zeros(2, 4, 1))


class Network(nn.Module):
    """A step over states of zeros; subclasses say which."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(FEATURES + HIDDEN, 4 * HIDDEN)
        self.norm = nn.LayerNorm(4 * HIDDEN)
        self.out = nn.Linear(HIDDEN, 2)

    def zeros(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], HIDDEN)


class LayerNormLSTM(Network):
    def step(self, state: tuple[Tensor, Tensor], x: Tensor) -> Any:
        h, c = state
        i, f, g, o = self.norm(self.mix(torch.cat([x, h], 1))).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h

    def forward(self, x: Tensor) -> Any:
        zeros = self.zeros(x)
        (h, c), y = rnnx.scan(self.step, (zeros, zeros), x)
        return y, h, c


class StateSpace(Network):
    """h' = a h + B x, y = C h + x, element by element in h."""

    def __init__(self) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(HIDDEN))
        self.enter, self.leave = nn.Linear(FEATURES, HIDDEN), nn.Linear(HIDDEN, FEATURES)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = self.decay * h + self.enter(x)
        return h, self.leave(h) + x

    def forward(self, x: Tensor) -> Tensor:
        return rnnx.scan(self.step, self.zeros(x), x)[1]


class Nested(Network):
    """Two inputs, a nested state, several outputs."""

    def step(self, state: Any, frame: Any) -> Any:
        ((a, b), c), (x, y) = state, frame
        p, q, r, _ = self.mix(torch.cat([x * y, a], 1)).chunk(4, 1)
        a, b = torch.tanh(p) + b, torch.sigmoid(q) * a
        return ((a, b), c + r), (a, (b, x - y))

    def forward(self, x: Tensor, y: Tensor) -> Any:
        zeros = self.zeros(x)
        return rnnx.scan(self.step, ((zeros, zeros + 1), zeros), (x, y))


class Decoder(Network):
    """A step of modules inside modules, with integer states: it feeds its own choice back."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, FEATURES)
        self.deep = nn.Sequential(nn.Linear(HIDDEN, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 4)))

    def step(self, state: Any, x: Tensor) -> Any:
        h, last = state
        h = torch.tanh(self.mix(torch.cat([x + self.embed(last), h], 1))[:, :HIDDEN])
        scores = self.deep(h)
        return (h, scores.argmax(1)), scores

    def forward(self, x: Tensor) -> Tensor:
        start = torch.zeros(x.shape[0], dtype=torch.int64)
        return rnnx.scan(self.step, (self.zeros(x), start), x)[1]


class TimeFirst(Network):
    """Time is the first axis; a layer before and a layer behind."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv1d(FEATURES, FEATURES, 3, padding=1)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(self.mix(torch.cat([x, h], 1))[:, :HIDDEN])
        return h * h.abs(), h

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x.transpose(1, 2)).permute(2, 0, 1)
        h, y = rnnx.scan(self.step, x.new_ones(x.shape[1], HIDDEN), x, dim=0)
        return self.out(y.transpose(0, 1)) + h.sum(1)[:, None, None]


class Twice(Network):
    """One step, run over the frames and again over its own outputs."""

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(self.mix(torch.cat([x, h], 1))[:, :HIDDEN]).abs()
        return h, h

    def forward(self, x: Tensor) -> Tensor:
        h, y = rnnx.scan(self.step, self.zeros(x), x)
        return rnnx.scan(self.step, h, y[..., :FEATURES])[1]


def run(path: Path, *arrays: Tensor) -> list[np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    return session.run(None, dict(zip(names, (a.numpy() for a in arrays), strict=True)))


@pytest.mark.parametrize(
    ("network", "inputs", "scans"),
    [
        (LayerNormLSTM, 1, 1),
        (StateSpace, 1, 1),
        (Nested, 2, 1),
        (Decoder, 1, 1),
        (TimeFirst, 1, 1),
        (Twice, 1, 2),
    ],
)
def test_a_step_becomes_a_scan_with_free_batch_and_time(
    network: type[Network], inputs: int, scans: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = network().eval()
    example = tuple(torch.randn(2, 5, FEATURES) for _ in range(inputs))
    path = tmp_path / "model.onnx"
    shapes = dict(zip(("x", "y"), [DYNAMIC] * inputs, strict=False))
    contract = rnnx.export(model, example, path, dynamic_shapes=shapes)
    assert contract.operators["Scan"] == scans
    assert not contract.operators.keys() & {"RNN", "GRU", "LSTM", "Loop"}
    for batch, frames in SIZES:
        x = tuple(torch.randn(batch, frames, FEATURES) for _ in range(inputs))
        with torch.no_grad():
            expected = pytree.tree_leaves(model(*x))
        for actual, reference in zip(run(path, *x), expected, strict=True):
            np.testing.assert_allclose(actual, reference.numpy(), rtol=1e-5, atol=1e-5)


class ScansCells(nn.Module):
    """Each of torch's cells over the frames, with biases and without."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        relu = partial(nn.RNNCell, nonlinearity="relu")
        self.cells = nn.ModuleList(
            cell(FEATURES, HIDDEN, bias=bias)
            for cell in (nn.RNNCell, relu, nn.GRUCell, nn.LSTMCell)
            for bias in (True, False)
        )

    def forward(self, x: Tensor, h: Tensor) -> Any:
        starts = [(h, -h) if isinstance(cell, nn.LSTMCell) else h for cell in self.cells]
        pairs = zip(self.cells, starts, strict=True)
        return [rnnx.scan(cell, start, x, dim=self.dim) for cell, start in pairs]


@pytest.mark.parametrize("dim", [pytest.param(0, marks=pytest.mark.full), 1])
def test_a_cell_given_as_the_step_becomes_one_native_node(tmp_path: Path, dim: int) -> None:
    torch.manual_seed(0)
    path, model = tmp_path / "model.onnx", ScansCells(dim).eval()
    axes = {"x": {dim: "time", 1 - dim: "batch"}, "h": {0: "batch"}}
    example = torch.randn(5, 5, FEATURES), torch.randn(5, HIDDEN)
    contract = rnnx.export(model, example, path, dynamic_shapes=axes)
    native = {name: contract.operators.get(name) for name in ("RNN", "GRU", "LSTM", "Scan")}
    assert native == {"RNN": 4, "GRU": 2, "LSTM": 2, "Scan": None}
    for batch, frames in SIZES:
        leading = (batch, frames) if dim else (frames, batch)
        args = torch.randn(*leading, FEATURES), torch.randn(batch, HIDDEN)
        with torch.no_grad():
            expected = pytree.tree_leaves(model(*args))
        for actual, reference in zip(run(path, *args), expected, strict=True):
            np.testing.assert_allclose(actual, reference.numpy(), rtol=0, atol=1e-5)


class Unrolled(Network):
    def forward(self, x: Tensor) -> Tensor:
        h, outputs = self.zeros(x), []
        for t in range(x.shape[1]):  # the line that is named
            h = torch.tanh(self.mix(torch.cat([x[:, t], h], 1))[:, :HIDDEN])
            outputs.append(h)
        return torch.stack(outputs, 1)


class Stateful(Network):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, HIDDEN, batch_first=True)

    def step(self, h: Tensor, x: Tensor) -> Any:
        _, h = self.gru(x[:, None], h[None])  # the line that is named
        return h[0], h[0]

    def forward(self, x: Tensor) -> Tensor:
        return rnnx.scan(self.step, self.zeros(x), x)[1]


class Listed(Network):
    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(self.mix(torch.cat([x, h], 1))[:, [3, 1, 2, 0]])
        return h, h

    def forward(self, x: Tensor) -> Tensor:
        return rnnx.scan(self.step, self.zeros(x), x)[1]


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line and "line_of" not in line)


@pytest.mark.parametrize(
    ("network", "message", "hint"),
    [
        (Unrolled, f"test_scan.py:{line_of('for t in range(x.shape[1])')}", "rnnx.scan(step"),
        (Stateful, f"test_scan.py:{line_of('_, h = self.gru')}", "calls no recurrent layer"),
        (Listed, "makes a tensor of its own", "register_buffer"),
    ],
)
def test_what_cannot_be_captured_is_named_with_the_way_out(
    network: type[Network], message: str, hint: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(rnnx.ExportError) as caught:
        rnnx.export(network(), (torch.randn(2, 5, FEATURES),), path, dynamic_shapes={"x": DYNAMIC})
    assert message in str(caught.value)
    assert hint in str(caught.value.hint)
    assert not path.exists()


def test_scan_is_public_and_importing_rnnx_stays_light() -> None:
    code = (
        "import sys, rnnx; assert not {'torch', 'onnx', 'onnx_ir'} & set(sys.modules);"
        "first = rnnx.scan; import rnnx_exporters.recognise; assert rnnx.scan is first;"
        "assert callable(first) and 'scan' in rnnx.__all__"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Streams of exported networks, in any chunks, against torch's run over the whole sequence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import rnnx
from exportable import ATOL, Array, Network, dims, operators, recurrent, torch_run

AXES = {"x": {0: "batch", 1: "time"}}


@dataclass(frozen=True)
class Streamed:
    """A network exported for streaming."""

    module: nn.Module
    path: Path
    contract: rnnx.Contract

    def example(self, seed: int, batch: int, frames: int) -> Tensor:
        """Random input of its own dtype and layout."""
        generator = torch.Generator().manual_seed(seed)
        port = self.contract.inputs[0]
        shape = port.shape(batch=batch, frames=frames)
        if port.dtype == "int64":
            return torch.randint(0, port.num_embeddings or 0, shape, generator=generator)
        return torch.randn(shape, generator=generator)


class Starting(nn.Module):
    """Starts from states that were trained."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True)
        self.h0 = nn.Parameter(torch.randn(2, 1, 5))
        self.c0 = nn.Parameter(torch.randn(2, 1, 5))

    def forward(self, x: Tensor) -> Any:
        states = (state.expand(-1, x.shape[0], -1).contiguous() for state in (self.h0, self.c0))
        return self.lstm(x, tuple(states))


def layer(kind: str, layers: int) -> Callable[[], nn.Module]:
    return lambda: Network(
        lambda p, x: p["rnn"](x)[0],
        rnn=recurrent(kind, 4, 5, num_layers=layers, batch_first=True, bias=layers != 2),
    )


def around(compute: Callable[[Any, Tensor], Any]) -> Callable[[], nn.Module]:
    """A network with a part of each kind that streams."""
    return lambda: Network(
        compute,
        lower=nn.LSTM(4, 6, batch_first=True),
        upper=nn.GRU(6, 6, num_layers=2, batch_first=True),
        foot=nn.Linear(4, 4),
        head=nn.Linear(6, 3),
        norm=nn.LayerNorm(6),
        batch_norm=nn.BatchNorm1d(6),
        point=nn.Conv1d(6, 6, 1),
    )


def language_model() -> nn.Module:
    return Network(
        lambda p, x: p["head"](p["gru"](p["table"](x))[0]).log_softmax(-1),
        table=nn.Embedding(11, 5),
        gru=nn.GRU(5, 6, batch_first=True),
        head=nn.Linear(6, 11),
    )


def norms_and_kernels_of_one_frame(p: Any, x: Tensor) -> Tensor:
    y = p["norm"](p["lower"](p["foot"](x).relu())[0])
    y = p["point"](p["batch_norm"](y.transpose(1, 2))).transpose(1, 2)
    z: Tensor = p["head"](F.gelu(p["upper"](y)[0] + y))
    return z


def heads(p: Any, x: Tensor) -> Tensor:
    y = p["lower"](x)[0]
    split = y.reshape(x.shape[0], -1, 2, 3).softmax(-1)
    z: Tensor = p["upper"](split.flatten(2))[0]
    return z


def readouts(p: Any, x: Tensor) -> Any:
    y, (h, _) = p["lower"](x)
    z, last = p["upper"](y)
    return z, y[:, -1], p["head"](last[-1]).softmax(-1), h[-1]


def labels(p: Any, x: Tensor) -> Any:
    logits = p["head"](p["lower"](x)[0])
    return logits.argmax(-1), logits.amax(-1), logits.topk(2)[0], logits.chunk(3, -1)[1]


LAYERS = (("rnn_tanh", "gru", "lstm"), ("rnn_relu", "gru", "lstm"), ("rnn_tanh", "gru", "lstm"))
TIME_FIRST = {"x": {0: "time", 1: "batch"}}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor, Any]] = {
    **{
        f"{kind}-{count}": (layer(kind, count), torch.randn(2, 5, 4), AXES)
        for count, kinds in enumerate(LAYERS, 1)
        for kind in kinds
    },
    "one-frame": (around(norms_and_kernels_of_one_frame), torch.randn(2, 5, 4), AXES),
    "heads": (around(heads), torch.randn(2, 5, 4), AXES),
    "readouts": (around(readouts), torch.randn(2, 5, 4), AXES),
    "labels": (around(labels), torch.randn(2, 5, 4), AXES),
    "tokens": (language_model, torch.randint(0, 11, (2, 5)), AXES),
    "learned-start": (Starting, torch.randn(2, 5, 4), AXES),
    "time-first": (lambda: nn.LSTM(4, 5), torch.randn(5, 2, 4), {"input": TIME_FIRST["x"]}),
    "unbatched": (lambda: nn.GRU(4, 5, 2), torch.randn(5, 4), {"input": {0: "time"}}),
}


@pytest.fixture(scope="module", params=NETWORKS)
def streamed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Streamed:
    make, x, axes = NETWORKS[request.param]
    torch.manual_seed(7)
    path, module = tmp_path_factory.mktemp("streamed") / "model.onnx", make()
    contract = rnnx.export(module, (x,), path, dynamic_shapes=axes, streaming=True)
    return Streamed(module.eval(), path, contract)


@settings(max_examples=15)
@given(
    chunks=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    batch=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_chunks_equal_the_whole(
    streamed: Streamed, chunks: list[int], batch: int, seed: int
) -> None:
    """After each chunk, frames and running values are those of a whole run up to there."""
    port = streamed.contract.inputs[0]
    batch = batch if port.batch_axis is not None else 1
    x = streamed.example(seed, batch, sum(chunks))
    stream = rnnx.Stream(streamed.path, batch=batch)
    for stop, size in zip(accumulate(chunks), chunks, strict=True):
        found = named(streamed.contract, stream.feed(cut(x, port, stop - size, stop)))
        if stop:
            hold_up_to(streamed, cut(x, port, 0, stop), stop - size, found)
    assert stream.position == sum(chunks)
    for name, tail in named(streamed.contract, stream.flush()).items():
        axis = next(p.time_axis for p in streamed.contract.outputs if p.name == name)
        assert axis is None or tail.shape[axis] == 0


def cut(x: Tensor, port: rnnx.Port, start: int, stop: int) -> Array:
    assert port.time_axis is not None
    return x.narrow(port.time_axis, start, stop - start).numpy()


def named(contract: rnnx.Contract, result: Any) -> dict[str, Array]:
    return result if isinstance(result, dict) else {contract.outputs[0].name: result}


def hold_up_to(streamed: Streamed, x: Array, start: int, found: dict[str, Array]) -> None:
    """Torch over all of `x`: its frames from `start` on, and its values at the end."""
    whole = torch_run(streamed.module, torch.from_numpy(x))
    for port, expected in zip(streamed.contract.outputs, whole, strict=True):
        if port.time_axis is not None:
            expected = np.split(expected, [start], port.time_axis)[1]
        assert found[port.name].dtype == expected.dtype
        np.testing.assert_allclose(found[port.name], expected, rtol=0, atol=ATOL)


def test_the_file_streams_in_plain_onnxruntime(streamed: Streamed) -> None:
    """No rnnx: states start as the contract says, and go from output to input."""
    session = ort.InferenceSession(streamed.path, providers=["CPUExecutionProvider"])
    names = [port.name for port in streamed.contract.outputs]
    states = {state.input_name: state.start(batch=1) for state in streamed.contract.states}
    port, x = streamed.contract.inputs[0], streamed.example(0, 1, 6)
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        feeds = {port.name: cut(x, port, start, stop), **states}
        outputs = [s.output_name for s in streamed.contract.states]
        results = session.run([*names, *outputs], feeds)
        found = dict(zip(names, results[: len(names)], strict=True))
        states = dict(zip(states, results[len(names) :], strict=True))
        hold_up_to(streamed, cut(x, port, 0, stop), start, found)


def test_states_are_inputs_and_outputs_in_order(streamed: Streamed) -> None:
    contract, graph = streamed.contract, onnx.load(streamed.path).graph
    states = contract.states
    assert [s.name for s in states] == [f"s{count:03d}" for count in range(len(states))]
    assert [v.name for v in graph.input] == [
        *(port.name for port in contract.inputs),
        *(state.input_name for state in states),
    ]
    assert [v.name for v in graph.output] == [
        *(port.name for port in contract.outputs),
        *(state.output_name for state in states),
    ]
    assert dims(graph.input) == [*(p.dims for p in contract.inputs), *(s.dims for s in states)]
    assert rnnx.load_contract(streamed.path) == contract
    assert contract.streaming


def test_the_contract_names_each_state(tmp_path: Path) -> None:
    module = around(readouts)()
    contract = rnnx.export(module, (torch.randn(2, 5, 4),), tmp_path / "m.onnx", streaming=True)
    found = [(s.name, s.kind, s.module, s.layer, s.dims, s.dtype) for s in contract.states]
    rest = (("batch", 6), "float32")
    assert found == [
        ("s000", "h", "parts.lower", 0, *rest),
        ("s001", "c", "parts.lower", 0, *rest),
        ("s002", "h", "parts.upper", 0, *rest),
        ("s003", "h", "parts.upper", 1, *rest),
    ]
    assert [port.time_axis for port in contract.outputs] == [1, None, None, None]
    assert [port.batch_axis for port in contract.outputs] == [0, 0, 0, 0]
    assert contract.delay == 0
    assert contract.checked is not None
    assert contract.source["model"] == "Network"


def test_a_learned_start_is_the_state_s_first_value(tmp_path: Path) -> None:
    module = Starting()
    contract = rnnx.export(module, (torch.randn(2, 5, 4),), tmp_path / "m.onnx", streaming=True)
    expected = [module.h0[0, 0], module.c0[0, 0], module.h0[1, 0], module.c0[1, 0]]
    stream = rnnx.Stream(tmp_path / "m.onnx", batch=3)
    stream.feed(np.ones((3, 2, 4), np.float32))
    stream.reset()
    for state, value in zip(contract.states, expected, strict=True):
        assert state.initial is not None
        assert np.array_equal(state.initial, value.detach().numpy())
        assert np.array_equal(stream.states()[state.name], np.tile(state.initial, (3, 1)))


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_states_that_are_passed_in_become_the_stream_s(tmp_path: Path, kind: str) -> None:
    path, module = tmp_path / "m.onnx", recurrent(kind, 4, 5, num_layers=2, batch_first=True)
    count = 2 if kind == "lstm" else 1
    zeros = tuple(torch.zeros(2, 2, 5) for _ in range(count))
    hx = zeros if kind == "lstm" else zeros[0]
    contract = rnnx.export(module, (torch.randn(2, 7, 4), hx), path, streaming=True)
    assert [port.name for port in contract.inputs] == ["input"]
    assert len(contract.states) == 2 * count
    assert all(state.initial is None for state in contract.states)
    x = torch.randn(2, 9, 4)
    stream = rnnx.Stream(path, batch=2)
    parts = [stream.feed(part.numpy())["y0"] for part in x.tensor_split((4, 8), 1)]
    whole, *finals = torch_run(module, x)
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=ATOL)
    for state in contract.states:
        expected = finals["hc".index(state.kind)][state.layer]
        np.testing.assert_allclose(stream.states()[state.name], expected, rtol=0, atol=ATOL)


class Guided(nn.Module):
    """A GRU over frames, with a vector for the whole sequence beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.guide = nn.Linear(3, 5)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        y: Tensor = self.gru(x)[0] + self.guide(vector)[:, None]
        return y


def test_an_input_without_time_is_given_with_each_chunk(tmp_path: Path) -> None:
    path, module = tmp_path / "m.onnx", Guided()
    x, vector = torch.randn(2, 9, 4), torch.randn(2, 3)
    axes = {**AXES, "vector": {0: "batch"}}
    rnnx.export(module, (x, vector), path, dynamic_shapes=axes, streaming=True)
    stream = rnnx.Stream(path, batch=2)
    parts: list[Any] = [
        stream.feed({"x": p.numpy(), "vector": vector.numpy()}) for p in x.tensor_split((4, 8), 1)
    ]
    expected = torch_run(module, x, vector)[0]
    np.testing.assert_allclose(np.concatenate(parts, 1), expected, rtol=0, atol=ATOL)


def test_a_constant_output_streams(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = Network(
        lambda p, x: (p["gru"](x)[0], p["head"].weight),
        gru=nn.GRU(4, 5, batch_first=True),
        head=nn.Linear(5, 2),
    )
    contract = rnnx.export(
        module, (torch.randn(2, 5, 4),), path, dynamic_shapes=AXES, streaming=True
    )
    assert [port.time_axis for port in contract.outputs] == [1, None]
    found = rnnx.Stream(path).feed(np.ones((1, 3, 4), np.float32))
    assert np.array_equal(found["y1"], module.state_dict()["parts.head.weight"].numpy())


def test_a_streaming_graph_is_no_larger_than_its_offline_one(tmp_path: Path) -> None:
    """Nothing is left of what only made initial states, and no layer comes twice."""
    module, args = nn.LSTM(4, 5, num_layers=2, batch_first=True), (torch.randn(2, 5, 4),)
    rnnx.export(module, args, tmp_path / "m.onnx", streaming=True)
    found = set(operators(tmp_path / "m.onnx"))
    assert found == {"Concat", "LSTM", "Squeeze", "Transpose", "Unsqueeze"}

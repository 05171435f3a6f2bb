"""`rnnx.export`: networks around recurrent layers, what is written, and what is left alone."""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import rnnx
from exportable import Network, flat, hold, operators, plain_run, recurrent, torch_run

SIZES = ((3, 7), (1, 1), (4, 23))
AXES = {"x": {0: "batch", 1: "time"}}


def frames(features: int = 4) -> Callable[[int, int], Tensor]:
    return lambda batch, time: torch.randn(batch, time, features)


def channels(batch: int, time: int) -> Tensor:
    return torch.randn(batch, 4, time)


def tokens(batch: int, time: int) -> Tensor:
    return torch.randint(0, 11, (batch, time))


def trained(norm: nn.BatchNorm1d) -> nn.BatchNorm1d:
    """Statistics as training leaves them; fresh ones would change nothing."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def linear_around() -> nn.Module:
    return Network(
        lambda p, x: p["head"](F.gelu(p["norm"](p["lstm"](p["foot"](x))[0]))),
        foot=nn.Linear(4, 5),
        lstm=nn.LSTM(5, 6, batch_first=True),
        norm=nn.LayerNorm(6),
        head=nn.Linear(6, 2),
    )


def embedding() -> nn.Module:
    return Network(
        lambda p, x: p["head"](p["gru"](p["table"](x))[0]),
        table=nn.Embedding(11, 5),
        gru=nn.GRU(5, 6, batch_first=True),
        head=nn.Linear(6, 11),
    )


def conv1d_front() -> nn.Module:
    return Network(
        lambda p, x: p["gru"](p["norm"](p["conv"](x).relu()).transpose(1, 2))[0],
        conv=nn.Conv1d(4, 6, 3, padding=1),
        norm=trained(nn.BatchNorm1d(6)),
        gru=nn.GRU(6, 5, batch_first=True),
    )


def conv2d_front() -> nn.Module:
    def compute(p: Any, x: Tensor) -> Tensor:
        image = p["conv"](x.unsqueeze(1))  # [batch, 3, time, 4]
        y: Tensor = p["lstm"](image.permute(0, 2, 1, 3).flatten(2))[0]
        return y

    return Network(
        compute,
        conv=nn.Conv2d(1, 3, 3, padding=1),
        lstm=nn.LSTM(12, 5, bidirectional=True, batch_first=True),
    )


def group_norm() -> nn.Module:
    return Network(
        lambda p, x: p["norm"](p["rnn"](x)[0].transpose(1, 2)).transpose(1, 2),
        rnn=nn.RNN(4, 6, batch_first=True),
        norm=nn.GroupNorm(2, 6),
    )


def dropout_between() -> nn.Module:
    return Network(
        lambda p, x: p["drop"](p["gru"](x)[0]),
        gru=nn.GRU(4, 5, num_layers=3, dropout=0.5, batch_first=True),
        drop=nn.Dropout(0.5),
    )


def called_twice() -> nn.Module:
    gru = nn.GRU(4, 4, batch_first=True)
    return Network(lambda p, x: p["gru"](p["gru"](x)[0])[0], gru=gru)


def called_twice_on_one_input() -> nn.Module:
    gru = nn.GRU(4, 4, batch_first=True)
    return Network(lambda p, x: p["gru"](x)[0] + p["gru"](x)[0], gru=gru)


def cells_called_twice() -> nn.Module:
    """Twice on one frame, and once on another."""

    def compute(p: Any, x: Tensor) -> Any:
        cell, first, last = p["cell"], x[:, 0], x[:, -1]
        return p["gru"](x)[0] + (cell(first)[0] + cell(first)[0] + cell(last)[0])[:, None]

    return Network(compute, cell=nn.LSTMCell(4, 5), gru=nn.GRU(4, 5, batch_first=True))


def tied_layers() -> nn.Module:
    """Two layers that own the same parameters, on one input and on another."""
    one, other = nn.LSTM(4, 4, batch_first=True), nn.LSTM(4, 4, batch_first=True)
    for name, weight in one.named_parameters():
        setattr(other, name, weight)
    return Network(
        lambda p, x: p["other"](p["one"](x)[0])[0] + p["other"](x)[0], one=one, other=other
    )


def unused_branch() -> nn.Module:
    def compute(p: Any, x: Tensor) -> Tensor:
        p["auxiliary"](x)
        y: Tensor = p["gru"](x)[0]
        return y

    return Network(
        compute,
        gru=nn.GRU(4, 5, batch_first=True),
        auxiliary=nn.LSTM(4, 5, batch_first=True),
    )


def mixed_stack() -> nn.Module:
    return Network(
        lambda p, x: p["rnn"](p["gru"](p["lstm"](x)[0])[0])[0],
        lstm=nn.LSTM(4, 5, batch_first=True),
        gru=nn.GRU(5, 6, batch_first=True),
        rnn=nn.RNN(6, 3, nonlinearity="relu", batch_first=True),
    )


def attention_pooling() -> nn.Module:
    def compute(p: Any, x: Tensor) -> Any:
        y = p["gru"](x)[0]
        return (p["score"](y).softmax(1) * y).sum(1)

    return Network(compute, gru=nn.GRU(4, 5, batch_first=True), score=nn.Linear(5, 1))


def encoder_decoder() -> nn.Module:
    def compute(p: Any, x: Tensor) -> Any:
        y, h = p["encoder"](x)
        return p["decoder"](y, h)[0]

    return Network(
        compute,
        encoder=nn.GRU(4, 5, num_layers=2, batch_first=True),
        decoder=nn.GRU(5, 5, num_layers=2, batch_first=True),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[int, int], Tensor], list[str]]] = {
    "linear-around": (linear_around, frames(), ["LSTM"]),
    "embedding": (embedding, tokens, ["GRU"]),
    "conv1d-front": (conv1d_front, channels, ["GRU"]),
    "conv2d-front": (conv2d_front, frames(), ["LSTM"]),
    "group-norm": (group_norm, frames(), ["RNN"]),
    "dropout-between": (dropout_between, frames(), ["GRU"] * 3),
    "called-twice": (called_twice, frames(), ["GRU"] * 2),
    "called-twice-on-one-input": (called_twice_on_one_input, frames(), ["GRU"]),
    "cells-called-twice": (cells_called_twice, frames(), ["GRU", "LSTM", "LSTM"]),
    "tied-layers": (tied_layers, frames(), ["LSTM"] * 2),
    "unused-branch": (unused_branch, frames(), ["GRU"]),
    "mixed-stack": (mixed_stack, frames(), ["LSTM", "GRU", "RNN"]),
    "attention-pooling": (attention_pooling, frames(), ["GRU"]),
    "encoder-decoder": (encoder_decoder, frames(), ["GRU"] * 4),
}


def native(path: Path) -> list[str]:
    return [operator for operator in operators(path) if operator in ("RNN", "GRU", "LSTM")]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_around_recurrent_layers_equal_torch(tmp_path: Path, name: str) -> None:
    make, example, expected = NETWORKS[name]
    torch.manual_seed(0)
    path, module = tmp_path / "model.onnx", make()
    rnnx.export(module, (example(2, 6),), path)
    assert native(path) == expected
    for batch, time in SIZES:
        x = example(batch, time)
        hold(plain_run(path, x), torch_run(module, x))


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    module = Network(
        lambda p, x: p["norm"](p["gru"](x)[0].transpose(1, 2)),
        gru=nn.GRU(4, 5, num_layers=2, dropout=0.5, batch_first=True),
        norm=nn.BatchNorm1d(5),
    ).train()
    module.parts["norm"].eval()  # a frozen norm under a network in training
    module.parts["norm"].weight.requires_grad_(False)
    before = copy.deepcopy(module)
    rng = torch.get_rng_state()
    rnnx.export(module, (torch.randn(2, 5, 4, generator=torch.Generator()),), tmp_path / "m.onnx")
    assert [m.training for m in module.modules()] == [m.training for m in before.modules()]
    assert torch.equal(torch.get_rng_state(), rng)
    for (name, value), old in zip(module.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(value, old), name
        assert (value.requires_grad, value.grad) == (old.requires_grad, None), name
    for (name, buffer), kept in zip(module.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(buffer, kept), name


@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
@pytest.mark.parametrize("explicit", [False, True])
def test_unbatched_input(tmp_path: Path, kind: str, explicit: bool) -> None:
    path, module = tmp_path / "m.onnx", recurrent(kind, 4, 5, num_layers=2, bidirectional=True)
    states = tuple(torch.randn(4, 5) for _ in range(2 if kind == "lstm" else 1))
    hx = states if kind == "lstm" else states[0]
    more = (hx,) if explicit else ()
    contract = rnnx.export(module, (torch.randn(6, 4), *more), path)
    assert contract.inputs[0].dims == ("time", 4)
    for time in (1, 9):
        args = (torch.randn(time, 4), *more)
        hold(plain_run(path, *args), torch_run(module, *args))


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 6), (3, 1), (5, 5)])
def test_an_example_of_any_size_leaves_both_axes_free(
    tmp_path: Path, batch: int, time: int
) -> None:
    path, module = tmp_path / "m.onnx", nn.LSTM(4, 5, batch_first=True)
    rnnx.export(module, (torch.randn(batch, time, 4),), path)
    x = torch.randn(4, 9, 4)
    hold(plain_run(path, x), torch_run(module, x))


def test_the_tenth_export_is_as_right_as_the_first(tmp_path: Path) -> None:
    """Three networks in turn: the first and the tenth export are of the same, and equal."""
    kinds = {"lstm": True, "gru": False, "rnn_relu": True}
    modules = [recurrent(kind, 4, 5, batch_first=first) for kind, first in kinds.items()]
    example, x = torch.randn(2, 5, 4), torch.randn(3, 8, 4)
    for count in range(10):
        path, module = tmp_path / f"{count}.onnx", modules[count % 3]
        rnnx.export(module, (example,), path)
        hold(plain_run(path, x), torch_run(module, x))
    assert (tmp_path / "9.onnx").read_bytes() == (tmp_path / "0.onnx").read_bytes()


def test_what_torch_exported_before_is_no_matter(tmp_path: Path) -> None:
    """An export of torch's own leaves kernels of one length behind, which a later one would use."""
    path, module = tmp_path / "m.onnx", nn.GRU(4, 5, batch_first=True).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about its own attributes
        torch.export.export(module, (torch.randn(2, 5, 4),))
    rnnx.export(module, (torch.randn(2, 5, 4),), path)
    x = torch.randn(3, 8, 4)
    hold(plain_run(path, x), torch_run(module, x))


@pytest.mark.parametrize(
    "kind", [*(pytest.param(k, marks=pytest.mark.full) for k in ("rnn_tanh", "gru")), "lstm"]
)
def test_states_chained_over_chunks_give_the_whole(tmp_path: Path, kind: str) -> None:
    """Each run of onnxruntime starts from the states that the one before ended in."""
    path, module = tmp_path / "m.onnx", recurrent(kind, 4, 5, num_layers=2, batch_first=True)
    x, states = torch.randn(3, 11, 4), [torch.randn(2, 3, 5) for _ in range(2)]
    hx = tuple(states) if kind == "lstm" else states[0]
    rnnx.export(module, (x, hx), path)
    parts, carried = [], flat(hx)
    for chunk in x.split([1, 6, 4], 1):
        y, *ends = plain_run(path, chunk, carried)
        parts.append(y)
        carried = [torch.from_numpy(end) for end in ends]
    hold([np.concatenate(parts, 1), *ends], torch_run(module, x, hx))


def test_states_taken_as_star_args(tmp_path: Path) -> None:
    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5, batch_first=True)

        def forward(self, x: Tensor, *hx: Tensor) -> Any:
            return self.lstm(x, hx)

    def args(batch: int, frames: int) -> list[Tensor]:
        return [torch.randn(batch, frames, 4), *torch.randn(2, 1, batch, 5)]

    path, module = tmp_path / "m.onnx", Takes()
    contract = rnnx.export(module, tuple(args(2, 6)), path)
    assert [port.name for port in contract.inputs] == ["x", "hx_0", "hx_1"]
    given = args(3, 8)
    hold(plain_run(path, *given), torch_run(module, *given))


def test_exports_in_threads_do_not_meet(tmp_path: Path) -> None:
    modules = [recurrent(kind, 4, 5, batch_first=True) for kind in ("lstm", "gru", "rnn_tanh")]
    stdout, stderr = sys.stdout, sys.stderr
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            rnnx.export(modules[index], (torch.randn(2, 5, 4),), tmp_path / f"{index}.onnx")
        except BaseException as error:  # raised again below, where pytest sees it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(modules))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert (sys.stdout, sys.stderr) == (stdout, stderr)
    x = torch.randn(3, 8, 4)
    for index, module in enumerate(modules):
        hold(plain_run(tmp_path / f"{index}.onnx", x), torch_run(module, x))


def test_large_weights_are_plain_initializers(tmp_path: Path) -> None:
    path, module = tmp_path / "m.onnx", nn.LSTM(256, 512, batch_first=True)
    rnnx.export(module, (torch.randn(2, 3, 256),), path)
    graph = onnx.load(path).graph
    large = {i.name: tuple(i.dims) for i in graph.initializer if np.prod(i.dims) > 64}
    assert sorted(large.values()) == [(1, 2048, 256), (1, 2048, 512), (1, 4096)]
    readers = [node.op_type for node in graph.node if large.keys() & set(node.input)]
    assert readers == ["LSTM"]
    weights = sum(parameter.numel() * 4 for parameter in module.parameters())
    assert weights < path.stat().st_size < weights + 10_000


def test_gates_are_in_the_order_of_onnx(tmp_path: Path) -> None:
    path, module = tmp_path / "m.onnx", nn.GRU(4, 5, batch_first=True)
    rnnx.export(module, (torch.randn(2, 3, 4),), path)
    graph = onnx.load(path).graph
    node = next(node for node in graph.node if node.op_type == "GRU")
    weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    reset, update, new = module.state_dict()["weight_ih_l0"].numpy().reshape(3, 5, 4)
    assert np.array_equal(weights[node.input[1]][0], np.concatenate([update, reset, new]))


def test_ports_are_named_after_the_arguments(tmp_path: Path) -> None:
    path, state = tmp_path / "m.onnx", torch.zeros(1, 2, 5)
    contract = rnnx.export(nn.LSTM(4, 5), (torch.randn(3, 2, 4), (state, state)), path)
    assert [port.name for port in contract.inputs] == ["input", "hx_0", "hx_1"]
    assert [port.name for port in contract.outputs] == ["y0", "y1", "y2"]
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == ["input", "hx_0", "hx_1"]
    assert [value.name for value in graph.output] == ["y0", "y1", "y2"]
    assert rnnx.load_contract(path) == contract


def test_one_output_is_y_and_names_may_be_given(tmp_path: Path) -> None:
    module, args = linear_around(), (torch.randn(2, 5, 4),)
    contract = rnnx.export(module, args, tmp_path / "m.onnx")
    assert [port.name for port in contract.outputs] == ["y"]
    named = rnnx.export(
        module, args, tmp_path / "m.onnx", input_names=["audio"], output_names=["speech"]
    )
    assert str(named.inputs[0]) == "audio: float32[batch, time, 4]"
    assert str(named.outputs[0]) == "speech: float32[batch, time, 2]"


@pytest.mark.parametrize(
    "names",
    [
        {"output_names": ["gru.l0.W", "h"]},
        {"input_names": ["gru.l0.R"]},
        {"input_names": ["getitem"], "output_names": ["input", "val_3"]},
    ],
)
def test_inner_names_make_way_for_the_ports(tmp_path: Path, names: dict[str, Any]) -> None:
    path, module = tmp_path / "m.onnx", nn.GRU(4, 5, batch_first=True)
    rnnx.export(module, (torch.randn(2, 5, 4),), path, **names)
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == names.get("input_names", ["input"])
    assert [value.name for value in graph.output] == names.get("output_names", ["y0", "y1"])
    x = torch.randn(3, 8, 4)
    hold(plain_run(path, x), torch_run(module, x))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"output_names": ["y"]}, "output_names has 1 names for 2 values"),
        ({"input_names": ["x", "h"]}, "input_names has 2 names for 1 values"),
        ({"input_names": ["x"], "output_names": ["y", "x"]}, "share a name: x, y, x"),
        ({"input_names": [""]}, "input_names holds an empty name"),
    ],
)
def test_names_that_do_not_fit_are_refused(
    tmp_path: Path, names: dict[str, Any], message: str
) -> None:
    with pytest.raises(rnnx.InputError, match=message):
        rnnx.export(nn.GRU(4, 5), (torch.randn(2, 5, 4),), tmp_path / "m.onnx", **names)
    assert list(tmp_path.iterdir()) == []


def test_a_parameter_may_be_named_like_an_argument(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.randn(4))
            self.gru = nn.GRU(4, 5, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.gru(x * self.x)[0]
            return y

    path, module = tmp_path / "m.onnx", Scaled()
    contract = rnnx.export(module, (torch.randn(2, 5, 4),), path)
    assert [port.name for port in contract.inputs] == ["x"]
    x = torch.randn(3, 8, 4)
    hold(plain_run(path, x), torch_run(module, x))


def test_outputs_in_a_dict_keep_their_order(tmp_path: Path) -> None:
    path, gru = tmp_path / "m.onnx", nn.GRU(4, 5, batch_first=True)
    module = Network(
        lambda p, x: dict(zip(("z", "none", "a"), (*p["gru"](x), None), strict=True)), gru=gru
    )
    rnnx.export(module, (torch.randn(2, 5, 4),), path)
    x = torch.randn(3, 8, 4)
    hold(plain_run(path, x), torch_run(gru, x))

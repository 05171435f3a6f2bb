"""Batch and time axes: found from the recurrent layers, or given by the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import rnnx
from exportable import Network, dims, hold, plain_run, recurrent, torch_run
from rnnx_exporters import layout
from rnnx_exporters.layout import Layout, infer

B, T = "batch", "time"
ONE = torch.ones(1, 1, 1)


class Two(nn.Module):
    """A recurrent layer over `x`, and a second argument beside it."""

    def __init__(self, *, beside: str) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 4, batch_first=True)
        self.beside = beside

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        y: Tensor = self.gru(x)[0]
        return y * more.sum() if self.beside == "summed" else y + more


def found(module: nn.Module, *args: Any) -> list[layout.Axes]:
    return list(infer(module, args).axes)


@pytest.mark.parametrize(("batch", "time"), [(2, 5), (5, 2), (1, 1), (4, 4), (3, 1)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_the_layout_of_a_layer_is_found(batch: int, time: int, batch_first: bool) -> None:
    leading = (batch, time) if batch_first else (time, batch)
    module = nn.LSTM(4, 4, batch_first=batch_first)
    assert found(module, torch.randn(*leading, 4)) == [
        {0: B, 1: T} if batch_first else {0: T, 1: B}
    ]


@settings(max_examples=40)
@given(
    kind=st.sampled_from(["rnn_tanh", "gru", "lstm"]),
    layers=st.integers(1, 3),
    directions=st.integers(1, 2),
    batch_first=st.booleans(),
    batch=st.integers(1, 6),
    time=st.integers(1, 6),
    size=st.integers(7, 9),
)
def test_states_are_found_whatever_sizes_agree(
    kind: str, layers: int, directions: int, batch_first: bool, batch: int, time: int, size: int
) -> None:
    module = recurrent(
        kind, size, size, num_layers=layers, bidirectional=directions == 2, batch_first=batch_first
    )
    x = torch.randn(*((batch, time) if batch_first else (time, batch)), size)
    state = torch.randn(layers * directions, batch, size)
    hx = (state, state) if kind == "lstm" else state
    of_x = {0: B, 1: T} if batch_first else {0: T, 1: B}
    assert found(module, x, hx) == [of_x, *[{1: B}] * (2 if kind == "lstm" else 1)]


@pytest.mark.parametrize(("batch", "time", "most"), [(2, 5, 40), (4, 4, 120)])
def test_a_layout_is_found_in_few_runs(batch: int, time: int, most: int) -> None:
    module, calls = nn.LSTM(6, 4, num_layers=2, bidirectional=True), []
    module.register_forward_pre_hook(lambda *_: calls.append(1))
    state = torch.randn(4, batch, 4)
    assert found(module, torch.randn(time, batch, 6), (state, state)) == NESTED
    assert len(calls) < most


def test_a_state_left_out_is_no_input() -> None:
    assert found(nn.GRU(4, 4), torch.randn(5, 2, 4), None) == [{0: T, 1: B}, {}]


def test_unbatched_frames_have_time_only() -> None:
    assert found(nn.GRU(4, 4, batch_first=True), torch.randn(5, 4)) == [{0: T}]


def test_token_ids() -> None:
    module = Network(
        lambda p, x: p["gru"](p["table"](x))[0],
        table=nn.Embedding(11, 4),
        gru=nn.GRU(4, 4, batch_first=True),
    )
    assert found(module, torch.randint(0, 11, (4, 4))) == [{0: B, 1: T}]


def test_channels_before_time() -> None:
    module = Network(
        lambda p, x: p["gru"](p["conv"](x).transpose(1, 2))[0],
        conv=nn.Conv1d(4, 4, 3),
        gru=nn.GRU(4, 4, batch_first=True),
    )
    assert found(module, torch.randn(4, 4, 6)) == [{0: B, 2: T}]


def test_a_strided_front_has_fewer_frames_than_its_input() -> None:
    module = Network(
        lambda p, x: p["gru"](p["conv"](x).transpose(1, 2))[0],
        conv=nn.Conv1d(3, 4, 4, stride=4),
        gru=nn.GRU(4, 4, batch_first=True),
    )
    assert found(module, torch.randn(2, 3, 8)) == [{0: B, 2: T}]


def test_an_axis_that_is_averaged_away_is_not_time() -> None:
    module = Network(lambda p, x: p["gru"](x.mean(2))[0], gru=nn.GRU(4, 4, batch_first=True))
    assert found(module, torch.randn(2, 5, 6, 4)) == [{0: B, 1: T}]


def test_an_argument_beside_the_sequence() -> None:
    args = torch.randn(4, 4, 4), torch.randn(4, 4, 1)
    assert found(Two(beside="added"), *args) == [{0: B, 1: T}, {0: B, 1: T}]


def test_what_is_inferred_is_exported(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    contract = rnnx.export(Two(beside="added"), (torch.randn(4, 4, 4), torch.randn(4, 4, 1)), path)
    assert [port.dims for port in contract.inputs] == [(B, T, 4), (B, T, 1)]
    assert [(port.batch_axis, port.time_axis) for port in contract.inputs] == [(0, 1)] * 2


@pytest.mark.parametrize(
    ("module", "args", "message"),
    [
        (Two(beside="summed"), (torch.randn(4, 4, 4), torch.randn(4, 4)), "2 ways fit"),
        (nn.Linear(4, 4), (torch.randn(2, 5, 4),), "no recurrent layer"),
        (nn.GRUCell(4, 4), (torch.randn(2, 4),), "no recurrent layer"),
        (Two(beside="added"), (torch.randn(4, 4, 4), torch.randn(4, 5, 1)), "0 ways fit"),
        (nn.LSTM(1, 1), (ONE, (ONE,) * 6), "too many axes of equal size"),
    ],
)
def test_what_is_not_clear_is_asked_for(module: nn.Module, args: Any, message: str) -> None:
    with pytest.raises(rnnx.ExportError, match=message) as caught:
        infer(module, args)
    assert "dynamic_shapes={'x': {0: 'batch', 1: 'time'}}" in str(caught.value.hint)


def test_an_example_of_nothing_is_refused() -> None:
    with pytest.raises(rnnx.InputError, match="an example argument holds nothing") as caught:
        infer(nn.GRU(4, 4), (torch.randn(5, 0, 4),))
    assert caught.value.hint


def held(module: nn.Module, args: tuple[Any, ...], dynamic_shapes: Any) -> list[layout.Axes]:
    return list(layout.given(module, args, dynamic_shapes).axes)


LSTM_ARGS = (torch.randn(5, 2, 4), (torch.randn(1, 2, 4), torch.randn(1, 2, 4)))
NESTED = [{0: T, 1: B}, {1: B}, {1: B}]


@pytest.mark.parametrize(
    "dynamic_shapes",
    [
        {"input": {0: T, 1: B}, "hx": ({1: B}, {1: B})},
        {"hx": [{1: B}, {1: B}], "input": {1: B, 0: T}},
        ({0: T, 1: B}, ({1: B}, {1: B})),
        [[T, B, None], [(None, B, None), (None, B, None)]],
        {
            "input": {0: torch.export.Dim(T), 1: torch.export.Dim(B)},
            "hx": ({1: B}, {1: B, 2: None}),
        },
    ],
    ids=["by-name", "any-order", "in-order", "sequences", "torch-dims"],
)
def test_axes_are_given_as_torch_takes_them(dynamic_shapes: Any) -> None:
    assert held(nn.LSTM(4, 4), LSTM_ARGS, dynamic_shapes) == NESTED


def test_what_is_not_named_is_fixed() -> None:
    assert held(nn.LSTM(4, 4), LSTM_ARGS, {"input": {0: T}}) == [{0: T}, {}, {}]


def test_a_dict_argument_is_named_by_key() -> None:
    def compute(p: Any, x: Any) -> Any:
        return p["gru"](x["a"])[0] + x["b"]

    module = Network(compute, gru=nn.GRU(4, 4))
    args = ({"a": torch.randn(5, 2, 4), "b": torch.randn(1, 4)},)
    assert held(module, args, {"x": {"a": {0: T}}}) == [{0: T}, {}]


@pytest.mark.parametrize(
    ("dynamic_shapes", "message"),
    [
        ({"x": {0: T}}, "names 'x', but the model's arguments are input, hx"),
        ({"input": {3: T}}, "axis 3 of a tensor of 3 axes"),
        ({"input": {-1: T}}, "axis -1 of a tensor of 3 axes"),
        ({"input": {"0": T}}, "axis '0' of a tensor of 3 axes"),
        ({"input": {0: ""}}, "the free axis '' has no name"),
        ({"input": {0: 5}}, "the free axis 5 has no name"),
        ({"input": {0: torch.export.Dim.AUTO}}, "has no name"),
        ({"input": T}, "holds 'time' where axes are named"),
        ({"input": {0: T}, "hx": ({1: B},)}, "1 entries for 2 values"),
        (({0: T},), "1 entries for 2 values"),
        ({"input": {0: T, 1: T}}, "axis 'time' of the example has the sizes 5 and 2"),
        ({"input": {0: B}, "hx": ({1: B}, None)}, "axis 'batch' of the example has the sizes"),
    ],
)
def test_axes_that_do_not_fit_are_refused(dynamic_shapes: Any, message: str) -> None:
    with pytest.raises(rnnx.InputError, match=message):
        held(nn.LSTM(4, 4), LSTM_ARGS, dynamic_shapes)


class Rest(nn.Module):
    """A recurrent layer whose state is one of `*rest`."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 4)

    def forward(self, x: Tensor, *rest: Tensor, **options: Any) -> Any:
        return self.gru(x, *rest, **options)


@pytest.mark.parametrize(
    "dynamic_shapes",
    [
        ({0: T, 1: B}, {1: B}),
        [{0: T, 1: B}, [None, B, None]],
        {"x": {0: T, 1: B}, "rest": ({1: B},)},
        {"rest": [{1: B}], "x": {0: T, 1: B}},
    ],
)
def test_arguments_without_a_name_are_named_in_order(dynamic_shapes: Any) -> None:
    args = (torch.randn(5, 2, 4), torch.randn(1, 2, 4))
    assert held(Rest(), args, dynamic_shapes) == NESTED[:2]


@pytest.mark.parametrize(
    ("dynamic_shapes", "message"),
    [
        ({"x": {0: T}, "rest": {1: B}}, r"holds \{1: 'batch'\} for the 1 values of \*rest"),
        ({"x": {0: T}, "rest": ({1: B}, {1: B})}, r"for the 1 values of \*rest"),
        ({"x": {0: T}, "hx": {1: B}}, "names 'hx', but the model's arguments are x, rest"),
        ({"x": {0: T}, "options": {}}, "names 'options'"),
        (({0: T}, ({1: B},)), "has no name"),
    ],
)
def test_axes_of_arguments_without_a_name_that_do_not_fit_are_refused(
    dynamic_shapes: Any, message: str
) -> None:
    with pytest.raises(rnnx.InputError, match=message):
        held(Rest(), (torch.randn(5, 2, 4), torch.randn(1, 2, 4)), dynamic_shapes)


def test_arguments_without_a_name_are_exported(tmp_path: Path) -> None:
    module, args = Rest(), (torch.randn(5, 2, 4), torch.randn(1, 2, 4))
    contract = rnnx.export(module, args, tmp_path / "m.onnx")
    assert [port.dims for port in contract.inputs] == [(T, B, 4), (1, B, 4)]
    x, h = torch.randn(7, 3, 4), torch.randn(1, 3, 4)
    hold(plain_run(tmp_path / "m.onnx", x, h), torch_run(module, x, h))


def test_an_empty_axis_cannot_be_free() -> None:
    with pytest.raises(rnnx.InputError, match="at least 1"):
        held(nn.GRU(4, 4), (torch.randn(0, 2, 4),), {"input": {0: T}})


def test_axes_of_what_is_no_tensor_are_refused() -> None:
    with pytest.raises(rnnx.InputError, match="axes of 3, which is not a tensor"):
        held(Two(beside="added"), (torch.randn(5, 2, 4), 3), {"more": {0: T}})


def test_axes_given_are_the_ones_exported(tmp_path: Path) -> None:
    path, module = tmp_path / "m.onnx", nn.GRU(4, 5)
    names = {"input": {0: "time", 1: "sequences"}, "hx": {1: "sequences"}}
    args = (torch.randn(5, 2, 4), torch.randn(1, 2, 5))
    contract = rnnx.export(module, args, path, dynamic_shapes=names)
    assert dims(onnx.load(path).graph.input) == [("time", "sequences", 4), (1, "sequences", 5)]
    assert [(port.batch_axis, port.time_axis) for port in contract.inputs] == [(1, 0), (1, None)]


@given(sizes=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_resizing_repeats_or_thins_the_example_in_order(sizes: tuple[int, int]) -> None:
    batch, time = sizes
    x = torch.randn(2, 3, 4)
    resized = Layout((x, None), ({0: B, 1: T}, {})).resized({B: batch, T: time})
    value = resized.args[0]
    assert value.shape == (batch, time, 4)
    sequences, frames = (torch.arange(n) * size // n for n, size in ((batch, 2), (time, 3)))
    assert torch.equal(value, x[sequences][:, frames])
    assert resized.sizes == {B: batch, T: time}

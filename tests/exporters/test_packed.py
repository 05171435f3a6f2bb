"""Packed sequences become `sequence_lens`: torch's result for every ragged batch and padding.

A covering sample of kinds, directions, layouts and totals runs always; all of them with `full`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import exportable
import rnnx
from exportable import ATOL, OPERATORS, flat, operators, plain_run, recurrent, torch_run

SAMPLE = (
    ("gru", True, True, True, False, 0.0, False),
    ("gru", False, False, False, True, -2.0, True),
    ("lstm", True, False, True, True, -2.0, True),
    ("lstm", False, True, False, False, 0.0, False),
    ("rnn_tanh", True, True, False, True, 0.0, True),
    ("rnn_relu", False, False, True, False, -2.0, False),
)
Options = tuple[str, bool, bool, bool, bool, float, bool]


class Packs(nn.Module):
    def __init__(self, options: Options) -> None:
        super().__init__()
        kind, self.sorted, self.batch_first, self.total, bidirectional, self.value, self.given = (
            options
        )
        torch.manual_seed(0)
        self.front = nn.Linear(3, 4)
        self.rnn = recurrent(
            kind, 4, 5, num_layers=2, bidirectional=bidirectional, batch_first=self.batch_first
        )

    def forward(
        self, x: Tensor, lengths: Tensor, h: Tensor | None = None, c: Tensor | None = None
    ) -> Any:
        packed = pack_padded_sequence(self.front(x), lengths, self.batch_first, self.sorted)
        y, final = self.rnn(packed, h if c is None else (h, c))
        total = x.shape[1 if self.batch_first else 0] if self.total else None
        return (*pad_packed_sequence(y, self.batch_first, self.value, total), final)

    def args(self, lengths: list[int], frames: int, junk: float) -> tuple[Tensor, ...]:
        rng = np.random.default_rng(len(lengths) + frames)
        x = torch.from_numpy(rng.standard_normal((len(lengths), frames, 3), np.float32))
        for row, length in zip(x, lengths, strict=True):
            row[length:] = junk
        x = x if self.batch_first else x.transpose(0, 1).contiguous()
        directions = 2 if self.rnn.bidirectional else 1
        shape = (2 * directions, len(lengths), 5)
        count = (2 if isinstance(self.rnn, nn.LSTM) else 1) if self.given else 0
        states = [torch.from_numpy(rng.standard_normal(shape, np.float32)) for _ in range(count)]
        return (x, torch.tensor(lengths), *states)


@cache
def exported(options: Options, folder: Path) -> tuple[Packs, ort.InferenceSession]:
    module = Packs(options).eval()
    path = folder / "packs.onnx"
    args = module.args([6, 4, 1], 6, 0.0)
    layout = {0: "batch", 1: "time"} if module.batch_first else {0: "time", 1: "batch"}
    axes = (layout, {0: "batch"}, *({1: "batch"} for _ in args[2:]))
    rnnx.export(module, args, path, dynamic_shapes=axes)
    found = operators(path)
    assert [found.count(name) for name in ("RNN", "GRU", "LSTM")].count(2) == 1, found
    return module, ort.InferenceSession(path, providers=["CPUExecutionProvider"])


def hold(options: Options, folder: Path, lengths: list[int], more: int, junk: float) -> None:
    module, session = exported(options, folder)
    lengths = sorted(lengths, reverse=True) if module.sorted else lengths
    args = module.args(lengths, max(lengths) + more, junk)
    with torch.no_grad():
        expected = flat(module(*args))
    feeds = {n.name: a.numpy() for n, a in zip(session.get_inputs(), args, strict=True)}
    for actual, wanted in zip(session.run(None, feeds), expected, strict=True):
        assert actual.shape == tuple(wanted.shape)
        np.testing.assert_allclose(actual, wanted.numpy(), rtol=0, atol=ATOL)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Options], Path]:
    return cache(lambda options: tmp_path_factory.mktemp("packs"))


@pytest.mark.parametrize("options", SAMPLE, ids=str)
def test_every_ragged_batch_is_torchs(options: Options, folder: Callable[[Options], Path]) -> None:
    @settings(max_examples=40)
    @given(
        lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
        more=st.integers(0, 3),
        junk=st.sampled_from([0.0, 1e3, float("nan")]),
    )
    def ragged(lengths: list[int], more: int, junk: float) -> None:
        hold(options, folder(options), lengths, more, junk)

    ragged()


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    list(itertools.product(OPERATORS, *[(True, False)] * 4, (0.0, -2.0), (True, False))),
    ids=str,
)
def test_all_packed_layers(options: Options, tmp_path: Path) -> None:
    for lengths, junk in (([7, 5, 5], float("nan")), ([1], 0.0), ([23, 2, 9, 1], 1e3)):
        for more in (0, 4):
            hold(options, tmp_path, lengths, more, junk)


class Calls(nn.Module):
    """A layer over two packed sequences in turn, then an LSTM with a projection over the second."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(3, 3, batch_first=True)
        self.lstm = nn.LSTM(3, 6, 2, proj_size=2, bidirectional=True, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        first, h = self.gru(self.packed(x, lengths))
        second, h = self.gru(self.packed(-x, lengths), h)
        third, (p, c) = self.lstm(second)
        y = [pad_packed_sequence(each, batch_first=True)[0] for each in (first, second, third)]
        return *y, h, p, c

    def packed(self, x: Tensor, lengths: Tensor) -> Any:
        return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own, about its speed
@pytest.mark.parametrize(
    ("lengths", "frames"),
    [
        ([1], 1),
        pytest.param([1], 5, marks=pytest.mark.full),
        pytest.param([1, 1, 1], 1, marks=pytest.mark.full),
        pytest.param([2, 3], 6, marks=pytest.mark.full),
    ],
)
def test_packed_layers_in_turn_from_an_example_of_any_size(
    tmp_path: Path, lengths: list[int], frames: int
) -> None:
    path, module = tmp_path / "m.onnx", Calls()
    example = (torch.randn(len(lengths), frames, 3), torch.tensor(lengths))
    axes = {"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    rnnx.export(module, example, path, dynamic_shapes=axes)
    found = operators(path)
    assert (found.count("GRU"), found.count("LSTM")) == (2, 2)
    for ragged, total in (([3, 7, 4], 7), ([1], 1), ([2, 19, 9, 1], 23)):
        args = (torch.randn(len(ragged), total, 3), torch.tensor(ragged))
        exportable.hold(plain_run(path, *args), torch_run(module, *args))


def test_a_sequence_of_no_frames_keeps_its_state(tmp_path: Path) -> None:
    """Torch refuses such a batch; onnxruntime alone would give zeros."""
    options = SAMPLE[1]
    module, session = exported(options, tmp_path)
    args = module.args([3, 2], 3, 0.0)
    feeds = {n.name: a.numpy() for n, a in zip(session.get_inputs(), args, strict=True)}
    feeds["lengths"] = np.array([3, 0])
    final = session.run(None, feeds)[2]
    np.testing.assert_array_equal(final[:, 1], feeds["h"][:, 1])
    assert not np.array_equal(final[:, 0], feeds["h"][:, 0])


def test_lengths_stand_in_the_contract(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    module = Packs(SAMPLE[0])
    contract = rnnx.export(
        module,
        module.args([6, 4, 1], 6, 0.0),
        path,
        dynamic_shapes={"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
    )
    assert [port.counts_frames for port in contract.inputs] == [False, True]
    assert rnnx.check(path, module).passed


def test_packed_sequences_do_not_stream(tmp_path: Path) -> None:
    module = Packs(("gru", True, True, True, False, 0.0, False))
    with pytest.raises(rnnx.NotStreamableError, match="lengths"):
        rnnx.export(
            module,
            module.args([6, 4, 1], 6, 0.0),
            tmp_path / "m.onnx",
            dynamic_shapes={"x": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
            streaming=True,
        )
    assert not list(tmp_path.iterdir())

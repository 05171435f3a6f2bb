"""Axes that are found: of packed sequences, and of lengths that must be a multiple."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnx
from exportable import hold, plain_run, torch_run


class Packed(nn.Module):
    def __init__(self, batch_first: bool, enforce_sorted: bool) -> None:
        super().__init__()
        self.options = {"batch_first": batch_first, "enforce_sorted": enforce_sorted}
        self.rnn = nn.GRU(4, 3, batch_first=batch_first)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, **self.options)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=self.options["batch_first"])
        return y


class Halved(nn.Module):
    """A U-net: its length is halved twice and doubled twice, and must be as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv1d(4, 4, 4, stride=2, padding=1) for _ in range(2))
        self.up = nn.ModuleList(nn.ConvTranspose1d(4, 4, 4, stride=2, padding=1) for _ in range(2))
        self.rnn = nn.GRU(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        whole = x.transpose(1, 2)
        half = self.down[0](whole).relu()
        quarter = self.down[1](half).relu()
        half = half + self.up[0](quarter)
        y: Tensor = self.rnn((whole + self.up[1](half)).transpose(1, 2))[0]
        return y


@pytest.mark.parametrize(
    ("batch_first", "enforce_sorted"),
    [
        (True, True),
        pytest.param(True, False, marks=pytest.mark.full),
        pytest.param(False, True, marks=pytest.mark.full),
        (False, False),
    ],
)
def test_the_axes_of_what_is_packed_are_found(
    tmp_path: Path, batch_first: bool, enforce_sorted: bool
) -> None:
    model, path = Packed(batch_first, enforce_sorted).eval(), tmp_path / "m.onnx"

    def padded(batch: int, frames: int) -> Tensor:
        return torch.randn(*((batch, frames) if batch_first else (frames, batch)), 4)

    contract = rnnx.export(model, (padded(3, 7), torch.tensor([7, 5, 2])), path)
    x, lengths = contract.inputs
    leading = ("batch", "time") if batch_first else ("time", "batch")
    assert (x.dims, lengths.dims, lengths.counts_frames) == ((*leading, 4), ("batch",), True)
    longest = tuple("longest" if name == "time" else name for name in leading)
    assert contract.outputs[0].dims == (*longest, 3)
    for known in ([9, 4], [6], [5, 5, 3, 1], *([] if enforce_sorted else [[2, 8, 3]])):
        args = padded(len(known), 9), torch.tensor(known)
        hold(plain_run(path, *args), torch_run(model, *args))


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model, path = Halved().eval(), tmp_path_factory.mktemp("halved") / "m.onnx"
    rnnx.export(model, (torch.randn(2, 16, 4),), path)
    return model, path


def test_lengths_of_a_multiple_are_a_free_axis(halved: tuple[nn.Module, Path]) -> None:
    model, path = halved
    contract = rnnx.load_contract(path)
    assert contract.inputs[0].dims == ("batch", "time", 4)
    assert contract.outputs[0].time_axis == 1
    for batch, frames in ((1, 4), (3, 8), (2, 20), (1, 52)):
        x = torch.randn(batch, frames, 4)
        hold(plain_run(path, x), torch_run(model, x))


def test_what_must_be_a_multiple_streams(halved: tuple[nn.Module, Path], tmp_path: Path) -> None:
    model, path = halved
    for chunk in (None, 8):
        contract = rnnx.to_streaming(path, tmp_path / "s.onnx", chunk=chunk)
        assert contract.chunk_multiple == (chunk or 4)
        x, stream = torch.randn(1, 44, 4), rnnx.Stream(tmp_path / "s.onnx")
        parts = [stream.feed(part.numpy()) for part in x.split([1, 7, 30, 6], dim=1)]
        found = torch.cat([torch.from_numpy(part) for part in (*parts, stream.flush())], dim=1)
        hold([found.numpy()], torch_run(model, x))

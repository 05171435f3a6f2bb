"""Encoders that make fewer frames: strided convolutions and pools before recurrent layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import rnnx
from exportable import Network, hold, operators, plain_run, torch_run
from rnnx_exporters.assumptions import Assumption

AXES = {"x": {0: "batch", 1: "time"}}


def along_time(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A layer over `[batch, features, time]`, run on `[batch, time, features]`."""
    return layer(x.transpose(1, 2)).transpose(1, 2)


def strided(front: nn.Module, back: nn.Module) -> nn.Module:
    return Network(lambda p, x: p["back"](along_time(p["front"], x))[0], front=front, back=back)


def convolution() -> nn.Module:
    front = nn.Conv1d(4, 5, 3, stride=2, padding=1)
    return strided(front, nn.GRU(5, 3, batch_first=True))


def raw_audio() -> nn.Module:
    return strided(nn.Conv1d(1, 5, 400, stride=160), nn.GRU(5, 3, batch_first=True))


def pool() -> nn.Module:
    return strided(nn.MaxPool1d(2), nn.LSTM(4, 3, batch_first=True, bidirectional=True))


def pools() -> nn.Module:
    front = nn.Sequential(nn.MaxPool1d(3, 2, padding=1), nn.AvgPool1d(2), nn.MaxPool1d(2, 1))
    return strided(front, nn.GRU(4, 3, batch_first=True))


def picture() -> nn.Module:
    def compute(p: Any, x: Tensor) -> Tensor:
        y = F.max_pool2d(F.relu(p["conv"](x[:, None])), (2, 4))
        out: Tensor = p["gru"](y.transpose(1, 2).flatten(2))[0]
        return out

    conv = nn.Conv2d(1, 3, 3, stride=(2, 1), padding=1)
    return Network(compute, conv=conv, gru=nn.GRU(6, 5, batch_first=True))


def stacked_frames() -> nn.Module:
    def compute(p: Any, x: Tensor) -> Tensor:
        out: Tensor = p["gru"](x.reshape(x.shape[0], x.shape[1] // 4, 16))[0]
        return out

    return Network(compute, gru=nn.GRU(16, 3, batch_first=True))


def upsampled() -> nn.Module:
    def compute(p: Any, x: Tensor) -> Tensor:
        return along_time(p["up"], p["gru"](x)[0])

    return Network(
        compute, gru=nn.GRU(4, 3, batch_first=True), up=nn.ConvTranspose1d(3, 2, 2, stride=2)
    )


# The network, the example's features and length, four lengths, the nodes and the output's time.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int, tuple[int, ...], str, str]] = {
    "convolution": (convolution, 4, 16, (1, 2, 7, 30), "GRU", "(time - 1) // 2 + 1"),
    "raw audio": (raw_audio, 1, 1600, (400, 559, 561, 1999), "GRU", "(time - 400) // 160 + 1"),
    "pool": (pool, 4, 17, (2, 3, 8, 31), "LSTM", "time // 2"),
    "pools": (pools, 4, 17, (7, 12, 17, 31), "GRU", ""),
    "picture": (picture, 8, 13, (3, 4, 9, 22), "GRU", ""),
    "stacked frames": (stacked_frames, 4, 16, (4, 8, 12, 40), "GRU", "time // 4"),
    "upsampled": (upsampled, 4, 5, (1, 2, 7, 20), "GRU", "2 * time"),
}
QUICK = ("raw audio", "pool", "picture", "stacked frames")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in NETWORKS],
)
def test_fewer_frames_than_came_in_equal_torch(tmp_path: Path, name: str) -> None:
    make, features, length, lengths, node, frames = NETWORKS[name]
    model, path = make().eval(), tmp_path / "m.onnx"
    contract = rnnx.export(model, (torch.randn(2, length, features),), path, dynamic_shapes=AXES)
    assert [op for op in operators(path) if op in {"RNN", "GRU", "LSTM"}] == [node]
    output = contract.outputs[0]
    assert (output.batch_axis, output.time_axis) == (0, 1)
    assert not frames or output.dims[1] == frames
    for batch, frames_in in zip((1, 2, 3, 5), lengths, strict=True):
        x = torch.randn(batch, frames_in, features)
        hold(plain_run(path, x), torch_run(model, x))


def evens(p: Any, x: Tensor) -> Tensor:
    y: Tensor = p["gru"](x)[0]
    if x.shape[1] % 2 == 0:  # here
        y = y * 2
    return y


def longer(p: Any, x: Tensor) -> Tensor:
    y: Tensor = p["gru"](x)[0]
    if x.shape[1] > 4:  # here
        y = y * 2
    return y


def wider(p: Any, x: Tensor) -> Tensor:
    y: Tensor = p["gru"](x)[0]
    if x.shape[1] > x.shape[0]:  # here
        y = y * 2
    return y


@pytest.mark.parametrize("compute", [evens, longer, wider])
def test_what_one_branch_computes_is_refused_at_its_line(
    tmp_path: Path, compute: Callable[[Any, Tensor], Tensor]
) -> None:
    lines, first = inspect.getsourcelines(compute)
    number = first + next(i for i, line in enumerate(lines) if line.endswith("# here\n"))
    model, path = Network(compute, gru=nn.GRU(4, 3, batch_first=True)), tmp_path / "m.onnx"
    with pytest.raises(rnnx.ExportError, match="freezes a free axis") as caught:
        rnnx.export(model, (torch.randn(2, 6, 4),), path, dynamic_shapes=AXES)
    assert f"{Path(__file__).name}:{number}: " in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize(
    ("condition", "false"),
    [
        ("time >= 3", [(2, 1), (2, 2)]),
        ("time % 2 == 0", [(2, 1), (2, 11)]),
        ("6 // (time // 4) > 0", [(2, 1), (2, 3)]),
        ("u0 >= 3", []),
        ("batch != 1", [(1, 6), (1, 6)]),
    ],
)
def test_an_assumption_tells_where_it_is_false(
    condition: str, false: list[tuple[int, int]]
) -> None:
    sizes = Assumption(condition).false_sizes({"batch": 2, "time": 6})
    assert [(size["batch"], size["time"]) for size in sizes] == false

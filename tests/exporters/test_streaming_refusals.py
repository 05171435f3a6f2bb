"""Networks that cannot run frame after frame: refused by name, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import rnnx
from exportable import Network

AXES = {"x": {0: "batch", 1: "time"}}


class Guided(nn.Module):
    """A GRU that starts from what it makes of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.guide = nn.Linear(3, 5, bias=False)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        y: Tensor = self.gru(x, self.guide(vector)[None])[0]
        return y


def test_a_state_computed_from_an_input_is_refused(tmp_path: Path) -> None:
    """The stream would start from zeros, and the vector be lost, without a word."""
    args, axes = (torch.randn(2, 9, 4), torch.randn(2, 3)), {**AXES, "vector": {0: "batch"}}
    path = tmp_path / "m.onnx"
    with pytest.raises(rnnx.NotStreamableError, match="computed from an input") as caught:
        rnnx.export(Guided(), args, path, dynamic_shapes=axes, streaming=True)
    assert "as an argument" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def instance_normed(p: Any, x: Tensor) -> Tensor:
    y: Tensor = p["instance"](p["gru"](x)[0].transpose(1, 2)).transpose(1, 2)
    return y


def group_normed(p: Any, x: Tensor) -> Tensor:
    y: Tensor = p["groups"](p["gru"](x)[0].transpose(1, 2)).transpose(1, 2)
    return y


def attended(p: Any, x: Tensor) -> Tensor:
    y = p["gru"](x)[0]
    z: Tensor = (y @ y.transpose(1, 2)).softmax(-1) @ y
    return z


def decoded(p: Any, x: Tensor) -> Tensor:
    y, h = p["gru"](x)
    z: Tensor = p["decoder"](y, h)[0]
    return z


def pooled_over_frames(p: Any, x: Tensor) -> Tensor:
    y = p["gru"](x)[0]
    z: Tensor = y + y[:, -1:]
    return z


def flattened(p: Any, x: Tensor) -> Tensor:
    z: Tensor = p["gru"](x)[0].reshape(-1)
    return z


def counted(p: Any, x: Tensor) -> Any:
    return p["gru"](x)[0], torch.tensor(x.shape[1])


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "bidirectional": (lambda p, x: p["both"](x)[0], "GRU node 'parts.both.l0'.*bidirectional"),
    "mean": (lambda p, x: p["gru"](x)[0].mean(1), "ReduceMean runs over time"),
    "softmax": (lambda p, x: p["gru"](x)[0].softmax(1), "Softmax runs over time"),
    "attention": (attended, "MatMul node .* multiplies frames by other frames"),
    "flip": (
        lambda p, x: p["gru"](x.flip(1))[0],
        "Slice node .* read backward from its end",
    ),
    "encoder-decoder": (decoded, "'parts.decoder'.*only when another sequence has ended"),
    "end-in-every-frame": (pooled_over_frames, "every frame with the value at the end"),
    "instance-norm": (instance_normed, "'parts.instance'.*InstanceNormalization runs over time"),
    "group-norm": (group_normed, "'parts.groups'.*time axis"),
    "flattened": (flattened, "Reshape node .* merges the time axis"),
    "first-frame": (lambda p, x: p["gru"](x)[0][:, 0], "Gather node .* single frames"),
    "length": (counted, "output 'y1' counts the frames"),
}


def breaking() -> dict[str, nn.Module]:
    """Parts that networks which cannot stream are made of."""
    return {
        "gru": nn.GRU(4, 4, batch_first=True),
        "decoder": nn.GRU(4, 4, batch_first=True),
        "both": nn.GRU(4, 4, batch_first=True, bidirectional=True),
        "instance": nn.InstanceNorm1d(4),
        "groups": nn.GroupNorm(2, 4),
    }


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_stream_is_refused_by_name(tmp_path: Path, name: str) -> None:
    compute, message = REFUSED[name]
    module, path = Network(compute, **breaking()), tmp_path / "m.onnx"
    with pytest.raises(rnnx.NotStreamableError, match=message) as caught:
        rnnx.export(module, (torch.randn(2, 5, 4),), path, dynamic_shapes=AXES, streaming=True)
    assert caught.value.hint
    assert "fault in rnnx" not in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_time_axis_by_another_name_is_asked_for(tmp_path: Path) -> None:
    axes = {"input": {0: "batch", 1: "frames"}}
    module, args = nn.GRU(4, 5, batch_first=True), (torch.randn(2, 5, 4),)
    with pytest.raises(rnnx.NotStreamableError, match="no input has a free axis named 'time'"):
        rnnx.export(module, args, tmp_path / "m.onnx", dynamic_shapes=axes, streaming=True)
    assert list(tmp_path.iterdir()) == []

"""Inputs of different rates: so many samples of one with every frame of the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx

SAMPLES = 10  # for each frame


class Listens(nn.Module):
    """A GRU over audio and, at a tenth of its rate, features with a look-ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, 4, 25, stride=SAMPLES, padding=12)
        self.context = nn.Conv1d(3, 3, 3, padding=1)
        self.rnn = nn.GRU(7, 5, batch_first=True)

    def forward(self, audio: Tensor, x: Tensor) -> Tensor:
        heard = self.front(audio[:, None]).relu().transpose(1, 2)
        seen = self.context(x.transpose(1, 2)).transpose(1, 2)
        y: Tensor = self.rnn(torch.cat([heard, seen], -1))[0]
        return y


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    path, module = tmp_path_factory.mktemp("rates") / "model.onnx", Listens().eval()
    axes = {"audio": {0: "batch", 1: f"{SAMPLES}*time"}, "x": {0: "batch", 1: "time"}}
    example = torch.randn(2, 20 * SAMPLES), torch.randn(2, 20, 3)
    rnnx.export(module, example, path, dynamic_shapes=axes, streaming=True)
    return module, path


@pytest.mark.parametrize("chunks", [(31,), (1,) * 31, (1, 1, 5, 3, 11, 10)])
def test_inputs_of_two_rates_stream(
    listening: tuple[nn.Module, Path], chunks: tuple[int, ...]
) -> None:
    module, path = listening
    audio, x = torch.randn(3, 31 * SAMPLES), torch.randn(3, 31, 3)
    stream = rnnx.Stream(path, batch=3)
    parts = [
        stream.feed({"audio": a.numpy(), "x": b.numpy()})
        for a, b in zip(
            audio.split([SAMPLES * frames for frames in chunks], 1), x.split(chunks, 1), strict=True
        )
    ]
    half = stream.clone()
    parts.append(stream.flush())
    np.testing.assert_allclose(
        np.concatenate(parts, 1), module(audio, x).detach().numpy(), atol=2e-6
    )
    np.testing.assert_array_equal(half.flush(), parts[-1])
    assert rnnx.check(path, module).passed


def test_rates_that_disagree_are_refused(listening: tuple[nn.Module, Path]) -> None:
    stream = rnnx.Stream(listening[1])
    x = np.zeros((1, 2, 3), np.float32)
    for samples, told in ((15, "3/2"), (30, "3")):
        with pytest.raises(rnnx.InputError, match=rf"time axis: .*'audio': '{told}', 'x': '2'"):
            stream.feed({"audio": np.zeros((1, samples), np.float32), "x": x})

"""Networks from torch, exported, then quantized: held against torch itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rnnx

pytestmark = pytest.mark.usefixtures("short_timing")

FLOOR_DB = {"fp16-store": 60, "int8-store": 35, "int8": 30}


class _Tagger(nn.Module):
    """An embedding or a convolution, recurrent layers, and a linear layer."""

    def __init__(self, operator: str, front: str, *, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.front = nn.Embedding(50, 24) if front == "Gather" else nn.Conv1d(24, 24, 3, padding=1)
        layer = getattr(nn, operator)
        self.hidden = layer(24, 48, layers, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(48 * (1 + bidirectional), 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.front, nn.Embedding):
            z = self.front(x)
        else:
            z = self.front(x.transpose(1, 2)).transpose(1, 2)
        return self.head(self.hidden(z)[0])


@pytest.mark.parametrize(
    ("operator", "front", "layers", "streaming"),
    [("LSTM", "Gather", 2, True), ("GRU", "Conv", 1, False), ("RNN", "Gather", 3, True)],
)
def test_every_layer_becomes_smaller_and_answers_as_torch_does(
    tmp_path: Path, operator: str, front: str, layers: int, streaming: bool
) -> None:
    torch.manual_seed(0)
    module = _Tagger(operator, front, layers=layers, bidirectional=not streaming).eval()
    x = torch.randint(0, 50, (2, 40)) if front == "Gather" else torch.randn(2, 40, 24)
    src, dst = tmp_path / "m.onnx", tmp_path / "small.onnx"
    rnnx.export(module, (x[:, :9].contiguous(),), src, streaming=streaming)
    with torch.no_grad():
        expected = module(x).numpy()
    for level, floor in FLOOR_DB.items():
        report = rnnx.quantize(src, dst, level=level, calibration=x.numpy())
        assert report.changed == {operator: layers, front: 1, "MatMul": 1}
        found = _answer(dst, x.numpy(), streaming)
        assert 10 * np.log10(np.sum(expected**2) / np.sum((found - expected) ** 2)) > floor


def _answer(path: Path, x: np.ndarray, streaming: bool) -> np.ndarray:
    model = rnnx.Model(path)
    if not streaming:
        return np.asarray(model.run(x))
    stream = model.stream(batch=len(x))
    return np.concatenate([np.asarray(stream.feed(x[:, t : t + 1])) for t in range(40)], axis=1)

"""A network of four layers to look into: a causal convolution, an LSTM of two layers, a GRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 4  # of everything, so that weights can be exchanged


class CRNN(nn.Module):
    """`x` [batch, time, 4] to 3 classes a frame."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(SIZE, SIZE, 3)
        self.act = nn.ReLU()
        self.lstm = nn.LSTM(SIZE, SIZE, 2, batch_first=True)
        self.gru = nn.GRU(SIZE, SIZE, batch_first=True)
        self.head = nn.Linear(SIZE, 3)

    def forward(self, x: Tensor) -> Tensor:
        frames = self.act(self.front(functional.pad(x.transpose(1, 2), (2, 0))))
        y: Tensor = self.head(self.gru(self.lstm(frames.transpose(1, 2))[0])[0])
        return y


def build() -> tuple[CRNN, tuple[Tensor]]:
    """The network and an example argument."""
    torch.manual_seed(0)
    return CRNN().eval(), (torch.randn(2, 7, SIZE),)

"""A keyword spotter over raw audio: strided convolutions, a look-ahead, a GRU and a skip."""

import torch
from torch import Tensor, nn


class KeywordSpotter(nn.Module):
    sample_rate = 16000
    labels = ("silence", "yes", "no", "stop")

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, 32, kernel_size=400, stride=160)  # 25 ms every 10 ms
        self.context = nn.Conv1d(32, 32, kernel_size=5, padding=2)  # sees 20 ms ahead
        self.rnn = nn.GRU(32, 32, batch_first=True)
        self.head = nn.Linear(32, len(self.labels))

    def forward(self, audio: Tensor) -> Tensor:
        frames = self.front(audio[:, None]).relu()
        frames = frames + self.context(frames).relu()
        y, _ = self.rnn(frames.transpose(1, 2))
        scores: Tensor = self.head(y)
        return scores


def build() -> KeywordSpotter:
    torch.manual_seed(0)
    return KeywordSpotter()

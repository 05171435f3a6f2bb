"""Write down what is said, letter by letter as it comes, with CTC, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jiwer
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import rnnx
from rnnx.recipes.speech_data import LETTERS, SAMPLE_RATE, Recording, Recordings

_WINDOW, _HOP = 200, 80  # samples: 25 ms every 10 ms
_BANDS = 40
_STRIDE = 3  # the network reads a frame every 30 ms
_SPEEDS = (0.9, 1.0, 1.1)
_BATCH = 8

_CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

Run = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


class Listener(nn.Module):
    """Reads sound, and gives for each 30 ms how likely each letter is; sees 60 ms ahead.

    Args:
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        hidden_size: units of each recurrent layer.
    """

    sample_rate = SAMPLE_RATE
    labels = LETTERS
    basis: Tensor
    filters: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, cell: str = "gru", hidden_size: int = 192) -> None:
        super().__init__()
        self.register_buffer("basis", fourier_basis())
        self.register_buffer("filters", mel_filters())
        self.register_buffer("mean", torch.zeros(_BANDS))  # of the training part
        self.register_buffer("std", torch.ones(_BANDS))
        self.context = nn.Conv1d(_BANDS, hidden_size, 9, stride=_STRIDE, padding=4)
        self.dropout = nn.Dropout(0.3)
        self.recurrent = _CELLS[cell](
            hidden_size, hidden_size, num_layers=2, dropout=0.3, batch_first=True
        )
        self.head = nn.Linear(hidden_size, len(LETTERS))

    def forward(self, audio: Tensor) -> Tensor:
        """Recognise whole recordings.

        Args:
            audio: float32 `[batch, time]` at 8 kHz.

        Returns:
            For each 30 ms the logits of `LETTERS`, float32 `[batch, frames, 29]`.
        """
        return self.recognise((self.spectrum(audio) - self.mean) / self.std)

    def spectrum(self, audio: Tensor) -> Tensor:
        """Log mel energies `[batch, frames, 40]` of audio `[batch, time]`."""
        waves = nn.functional.conv1d(audio[:, None], self.basis, stride=_HOP)
        real, imaginary = waves.chunk(2, dim=1)
        power = (real**2 + imaginary**2).transpose(1, 2)
        return (power @ self.filters + 1e-6).log()

    def recognise(self, spectrum: Tensor) -> Tensor:
        """Logits `[batch, frames // 3, 29]` of a normalised spectrum `[batch, frames, 40]`."""
        frames = self.context(spectrum.transpose(1, 2)).relu().transpose(1, 2)
        hidden, _ = self.recurrent(self.dropout(frames))
        logits: Tensor = self.head(self.dropout(hidden))
        return logits


def fourier_basis() -> Tensor:
    """Windowed cosines, then sines, of every frequency, as weights of a convolution."""
    time = torch.arange(_WINDOW)
    angles = 2 * torch.pi / _WINDOW * torch.arange(_WINDOW // 2 + 1)[:, None] * time
    waves = torch.cat([angles.cos(), angles.sin()]) * torch.hann_window(_WINDOW)
    return waves[:, None]


def mel_filters() -> Tensor:
    """Triangles over the frequencies, equally wide on the mel scale, `[frequencies, 40]`."""
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), _BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.linspace(0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.minimum(rising, falling).clip(0)).float()

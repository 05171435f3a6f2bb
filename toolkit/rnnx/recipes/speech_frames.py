"""From sound to frames: the front end inside the network, and batches of frames to train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rnnx.recipes.speech_data import LETTERS, SAMPLE_RATE, Audio

HOP = 80  # samples: a frame every 10 ms ...
BANDS = 40

_WINDOW = 256  # ... of 32 ms; onnxruntime's transform is exact for powers of two
_FLOOR = 1e-4  # of energy: silence has a logarithm too
_TEMPO = 0.15  # slower and faster speech
_GAPS, _WIDEST_GAP = 2, 8  # in each axis; frames and bands
_NOISE = 0.1  # in standard deviations

Pair = tuple[Tensor, Tensor]  # frames float32 [time, 40], letters int64 [letters]


class Spectrum(nn.Module):
    """Log mel energies of sound, normalised as those of the training part are."""

    window: Tensor
    filters: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(_WINDOW))
        self.register_buffer("filters", mel_filters())
        self.register_buffer("mean", torch.zeros(BANDS))
        self.register_buffer("std", torch.ones(BANDS))

    def forward(self, audio: Tensor) -> Tensor:
        """Spectra `[batch, frames, 40]` of audio, float32 `[batch, time]` at 8 kHz."""
        # Not a convolution by cosines: these would be quantized, and drown what is soft.
        waves = torch.stft(
            audio, _WINDOW, HOP, window=self.window, center=False, return_complex=True
        )
        power = (waves.real.square() + waves.imag.square()).transpose(1, 2)
        return ((power @ self.filters + _FLOOR).log() - self.mean) / self.std

    def fit(self, recordings: Iterable[Audio]) -> list[Tensor]:
        """Learn how to normalise; the spectra `[frames, 40]` of the recordings."""
        spectra = [self(torch.from_numpy(audio)[None])[0] for audio in recordings]
        frames = torch.cat(spectra)
        self.mean.copy_(frames.mean(0))
        self.std.copy_(frames.std(0))
        return [(spectrum - self.mean) / self.std for spectrum in spectra]


def mel_filters() -> Tensor:
    """Triangles over the frequencies, equally wide on the mel scale, `[frequencies, 40]`."""
    mels = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    frequencies = np.linspace(0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    return torch.from_numpy(np.minimum(rising, falling).clip(0)).float()


def letters(text: str) -> Tensor:
    """The places in `LETTERS` of a text's letters, int64 `[letters]`."""
    return torch.tensor([LETTERS.index(letter) for letter in text])


def batches(pairs: Sequence[Pair], size: int) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """All pairs in an order drawn anew, varied, those of a batch of about the same length.

    Yields:
        Frames, padded, float32 `[batch, time, 40]`; how many there are, int64 `[batch]`; letters,
        padded, int64 `[batch, letters]`; how many there are, int64 `[batch]`.
    """
    lengths = torch.tensor([float(len(frames)) for frames, _ in pairs])
    near = (lengths * (1 + 0.3 * torch.rand(len(pairs)))).argsort()
    groups = [near[i : i + size].tolist() for i in range(0, len(near), size)]
    for place in torch.randperm(len(groups)):
        chosen = [pairs[i] for i in groups[place]]
        frames = [vary(frames) for frames, _ in chosen]
        targets = [target for _, target in chosen]
        yield (*_padded(frames), *_padded(targets))


def vary(frames: Tensor) -> Tensor:
    """Frames `[time, 40]` as if said faster or slower, with noise, and with gaps in both axes."""
    time = max(1, round(len(frames) * (1 + _TEMPO * (2 * torch.rand(()).item() - 1))))
    stretched = nn.functional.interpolate(frames.T[None], time, mode="linear")[0].T
    varied = stretched + _NOISE * torch.randn_like(stretched)
    for axis in (varied, varied.T) * _GAPS:
        start, width = (int(torch.randint(high, ())) for high in (len(axis), _WIDEST_GAP))
        axis[start : start + width] = 0
    return varied


def _padded(sequences: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return pad_sequence(sequences, batch_first=True), lengths

"""The published voice detector of the package silero-vad 6.2.3, exported for any waveform.

The package computes one window after another: 512 samples behind the 64 before them, its state
carried. The network here is the same for a whole waveform, as one would train it. The reference is
the package's own TorchScript file. It hears real speech too, the 16 kHz .wav files of the Debian
package pocketsphinx-testdata, where that is installed (or of the folder RNNX_SPEECH).
"""

from __future__ import annotations

import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import rnnx
from exportable import operators
from published import published_file

# TorchScript is what the package publishes; torch still reads it.
pytestmark = [
    pytest.mark.full,
    pytest.mark.filterwarnings("ignore:`torch.jit.load` is:DeprecationWarning"),
]

RATE, WINDOW, CONTEXT = 16000, 512, 64
FFT, HOP = 256, 128  # samples of one spectrum, and from one to the next
SPEECH = Path(os.environ.get("RNNX_SPEECH", "/usr/share/pocketsphinx/test/data"))


@pytest.fixture(scope="module")
def published() -> Any:
    return torch.jit.load(published_file("silero-vad", "silero_vad/data/silero_vad.jit"), "cpu")


@pytest.fixture(scope="module")
def exported(published: Any, tmp_path_factory: pytest.TempPathFactory) -> rnnx.Model:
    path = tmp_path_factory.mktemp("silero") / "vad.onnx"
    rnnx.export(_Detector(published._model.state_dict()), (torch.randn(1, 4 * WINDOW),), path)
    assert operators(path).count("LSTM") == 1
    return rnnx.Model(path)


class _Detector(nn.Module):
    """The probability `[batch, windows]` that a window of `waveform` `[batch, samples]` is speech.

    Each window has four spectra, and four convolutions over these make one frame of it. None looks
    into another window, so they are convolutions over [spectra, windows], of one window each.
    """

    def __init__(self, published: dict[str, Tensor]) -> None:
        super().__init__()
        basis = _over_a_window(published["stft.forward_basis_buffer"])
        self.stft = nn.Conv1d(1, len(basis), WINDOW + CONTEXT, stride=WINDOW, bias=False)
        self.encoder = nn.Sequential(
            *_convolution(129, 128, 1),
            *_convolution(128, 64, 2),
            *_convolution(64, 64, 2),
            *_convolution(64, 128, 1),
        )
        self.rnn = nn.LSTM(128, 128, batch_first=True)
        self.head = nn.Linear(128, 1)
        self.load_state_dict({"stft.weight": basis, **_renamed(published)})

    def forward(self, waveform: Tensor) -> Tensor:
        spectra = self.stft(F.pad(waveform[:, None], (CONTEXT, 0)))
        real, imaginary = spectra.unflatten(1, (2, 129, 4)).unbind(1)
        frames = self.encoder((real**2 + imaginary**2).sqrt()).squeeze(2)
        y, _ = self.rnn(frames.transpose(1, 2))
        probabilities: Tensor = self.head(y.relu()).sigmoid().squeeze(-1)
        return probabilities


def _convolution(channels: int, out_channels: int, stride: int) -> tuple[nn.Module, nn.Module]:
    """Over the spectra of each window for itself."""
    kernel, strides, padding = (3, 1), (stride, 1), (1, 0)
    return nn.Conv2d(channels, out_channels, kernel, strides, padding), nn.ReLU()


def _over_a_window(basis: Tensor) -> Tensor:
    """The four transforms `[258, 1, 256]` of a window, the last reflected at its end, as one."""
    samples = torch.eye(CONTEXT + WINDOW)
    spectra = F.conv1d(F.pad(samples[:, None], (0, CONTEXT), "reflect"), basis, stride=HOP)
    return spectra.flatten(1).T[:, None].contiguous()


def _renamed(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The published weights by this network's names; the ReLUs count as layers of its encoder."""
    weights = {}
    for place in range(4):
        name = f"encoder.{place}.reparam_conv"
        weights[f"encoder.{2 * place}.weight"] = published[f"{name}.weight"][..., None]
        weights[f"encoder.{2 * place}.bias"] = published[f"{name}.bias"]
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        weights[f"rnn.{name}_l0"] = published[f"decoder.rnn.{name}"]
    weights["head.weight"] = published["decoder.decoder.2.weight"][..., 0]
    weights["head.bias"] = published["decoder.decoder.2.bias"]
    return weights


def _hold(exported: rnnx.Model, published: Any, waveform: np.ndarray) -> np.ndarray:
    """The probabilities `[batch, windows]`, equal to the package's, window after window."""
    whole = waveform.shape[1] // WINDOW * WINDOW
    published.reset_states()
    with torch.no_grad():
        windows = torch.from_numpy(waveform[:, :whole]).split(WINDOW, 1)
        expected = torch.cat([published(window, RATE) for window in windows], 1).numpy()
    found = exported.run(waveform)
    assert isinstance(found, np.ndarray)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    return found


@pytest.mark.parametrize(("batch", "samples"), [(1, 512), (2, 1023), (1, 1024), (5, 20480)])
def test_noise_of_every_length_is_judged_as_the_package_judges_it(
    batch: int, samples: int, exported: rnnx.Model, published: Any
) -> None:
    rng = np.random.default_rng(samples)
    _hold(exported, published, rng.normal(0, 0.1, (batch, samples)).astype(np.float32))


def test_synthetic_vowels_between_silences(exported: rnnx.Model, published: Any) -> None:
    found = _hold(exported, published, _vowels(20))
    assert found.max() > 0.5 > found.min()


def test_real_speech(exported: rnnx.Model, published: Any) -> None:
    files = sorted(SPEECH.rglob("*.wav"))
    if not files:
        pytest.skip(f"no .wav in {SPEECH}: apt-get install pocketsphinx-testdata")
    found = [_hold(exported, published, _samples(file)) for file in files]
    assert np.concatenate(found, 1).mean() > 0.5


def _samples(file: Path) -> np.ndarray:
    with wave.open(str(file)) as reader:
        assert (reader.getframerate(), reader.getsampwidth(), reader.getnchannels()) == (RATE, 2, 1)
        content = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
    return (content[None] / 2**15).astype(np.float32)


def _vowels(seconds: int) -> np.ndarray:
    """A gliding voice `[1, samples]` through changing formants, a second on, a second off."""
    t = np.arange(seconds * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(130 + 30 * np.sin(2 * np.pi * 0.7 * t)) / RATE
    formants = 500 + 250 * np.sin(9 * t), 1500 + 600 * np.sin(7 * t), 2600 + 0 * t
    voice = np.zeros_like(t)
    for harmonic in range(1, 30):
        pitch = harmonic * (130 + 30 * np.sin(2 * np.pi * 0.7 * t))
        strength = sum(np.exp(-(((pitch - formant) / 150) ** 2)) for formant in formants)
        voice += strength * np.sin(harmonic * phase)
    syllables = (1 + np.sin(2 * np.pi * 4 * t)) * (t % 2 < 1)
    hiss = np.random.default_rng(0).normal(0, 1e-3, t.shape)
    return (0.1 * voice * syllables + hiss)[None].astype(np.float32)


def test_it_streams_with_the_context_found_by_itself(published: Any, tmp_path: Path) -> None:
    path = tmp_path / "vad.onnx"
    module = _Detector(published._model.state_dict())
    contract = rnnx.export(module, (torch.randn(1, 4 * WINDOW),), path, streaming=True)
    assert (contract.first_chunk, contract.chunk_multiple) == (WINDOW, WINDOW)
    caches = [state for state in contract.states if state.kind == "cache"]
    assert [(state.dims, state.start_frames) for state in caches] == [
        (("batch", 1, CONTEXT), CONTEXT)
    ]
    waveform = _vowels(4)
    stream = rnnx.Stream(path)
    places = range(0, waveform.shape[1], 700)
    parts = [stream.feed(waveform[:, place : place + 700]) for place in places]
    found = np.concatenate([*parts, stream.flush()], 1)
    whole = waveform.shape[1] // WINDOW * WINDOW
    published.reset_states()
    with torch.no_grad():
        windows = torch.from_numpy(waveform[:, :whole]).split(WINDOW, 1)
        expected = torch.cat([published(window, RATE) for window in windows], 1).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)

"""The published speaker encoder of the package resemblyzer 0.1.4, exported from its own class.

The reference is that class in float64.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import rnnx
from exportable import operators
from published import module_at, published_file

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def encoder() -> nn.Module:
    file = published_file("resemblyzer", "resemblyzer/voice_encoder.py")
    module = module_at(file, hollow="audio").VoiceEncoder("cpu", verbose=False)
    assert isinstance(module, nn.Module)
    return module.eval()


def _mels(batch: int, frames: int) -> torch.Tensor:
    """Mel spectrograms `[batch, frames, 40]` as of speech: powers, syllable after syllable."""
    rng = np.random.default_rng(frames)
    syllables = 1 + np.sin(np.arange(frames) / 8 + 6 * rng.random((batch, 1)))
    powers = rng.exponential(0.02, (batch, frames, 40)) * syllables[..., None] ** 2
    return torch.from_numpy(powers.astype(np.float32))


def test_every_voice_is_where_the_package_puts_it(tmp_path: Path, encoder: nn.Module) -> None:
    path = tmp_path / "voice.onnx"
    rnnx.export(encoder, (_mels(2, 20),), path)
    assert operators(path).count("LSTM") == 3
    exported, precise = rnnx.Model(path), copy.deepcopy(encoder).double()
    for batch, frames in ((1, 160), (5, 160), (2, 1), (3, 37), (1, 800)):
        mels = _mels(batch, frames)
        with torch.no_grad():
            expected = precise(mels.double()).numpy()
        found = exported.run(mels.numpy())
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)

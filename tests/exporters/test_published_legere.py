"""The published text line reader of the package legere 0.11.0, exported from its own class.

Convolutions with strides over an image of free width, a GRU of two directions, CTC. The references
are that class in float64 and, for lines of print, the text itself.
"""

from __future__ import annotations

import copy
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rnnx
from exportable import operators
from published import module_at, published_file

pytestmark = pytest.mark.full

LINES = (
    "O coração tem razões que a razão desconhece",
    "Água mole em pedra dura, tanto bate até que fura",
    "Quem tem boca vai a Roma",
    "De grão em grão a galinha enche o papo",
    "Mais vale um pássaro na mão do que dois voando",
    "Devagar se vai ao longe",
    "Fatura 2019-04, total: 1.305,20",
)


@pytest.fixture(scope="module")
def published() -> ModuleType:
    return module_at(published_file("legere", "legere/model.py"))


@pytest.fixture(scope="module")
def reader(published: ModuleType) -> nn.Module:
    file = published_file("legere", "legere/data/model.pt")
    module: nn.Module = published.CompactCRNN()
    module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True)["model"])
    return module.eval()


@pytest.fixture(scope="module")
def exported(reader: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> rnnx.Model:
    path = tmp_path_factory.mktemp("legere") / "reader.onnx"
    rnnx.export(reader, (torch.rand(2, 1, 32, 64),), path)
    assert operators(path).count("GRU") == 1
    return rnnx.Model(path)


def _hold(exported: rnnx.Model, reader: nn.Module, images: Tensor) -> np.ndarray:
    """The logits `[batch, frames, classes]`, equal to the class's in float64."""
    with torch.no_grad():
        expected = copy.deepcopy(reader).double()(images.double()).numpy()
    found = exported.run(images.numpy())
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    return found


@pytest.mark.parametrize("width", [1, 3, 4, 5, 31, 64, 97, 333, 1280])
def test_every_width_gives_the_logits_of_the_package(
    width: int, exported: rnnx.Model, reader: nn.Module
) -> None:
    generator = torch.Generator().manual_seed(width)
    for batch in (1, 3):
        images = 2 * torch.rand(batch, 1, 32, width, generator=generator) - 1
        assert _hold(exported, reader, images).shape[:2] == (batch, -(-width // 4))


@pytest.mark.parametrize("text", LINES)
def test_print_is_read(
    text: str, exported: rnnx.Model, reader: nn.Module, published: ModuleType
) -> None:
    logits = _hold(exported, reader, _printed(text))
    assert published.ctc_greedy_decode(torch.from_numpy(logits)) == [text]


def _printed(text: str) -> Tensor:
    """A line of print `[1, 1, 32, width]`, white 1 and black -1."""
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(0.16 * len(text), 0.32))
    backend = pytest.importorskip("matplotlib.backends.backend_agg")
    canvas = backend.FigureCanvasAgg(figure)
    figure.set_dpi(100)
    figure.text(0.01, 0.5, text, fontsize=15, va="center")
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba())[..., :3].mean(-1, dtype=np.float32)
    return torch.from_numpy(grey / 127.5 - 1)[None, None]

"""`rnnx demo attention`: an encoder-decoder learns to write backwards; where does it look?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from rnnx.picture_file import save
from rnnx.recipes import encoder_decoder
from rnnx.recipes.encoder_decoder import EncoderDecoder, greedy
from rnnx.recipes.encoder_decoder_data import START, Ids, Pair, Vocabulary, padded
from rnnx.recipes.recipe import Tell

LETTERS = Vocabulary.of("abcdefghij")

_WORDS, _EPOCHS = 8000, 6
_SHOWN = "headache"


def run(directory: Path, *, seed: int, tell: Tell) -> Path:
    """Train, and draw `attention.png` for one word."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = EncoderDecoder(len(LETTERS), len(LETTERS), "gru", hidden_size=64)
    training, validation = words(rng, _WORDS), words(rng, _WORDS // 20)
    encoder_decoder.train(network, training, validation, epochs=_EPOCHS, tell=tell)
    source = LETTERS.ids(_SHOWN)
    (written,) = greedy(network, [np.array(source)], 2 * len(source))
    path = directory / "attention.png"
    draw(path, source, written, weights(network, source, written))
    return path


def words(rng: np.random.Generator, count: int) -> list[Pair]:
    """Random words of three to ten letters, and the same backwards, as ids."""
    ids = LETTERS.ids("abcdefghij")
    sources = [rng.choice(ids, rng.integers(3, 11)).tolist() for _ in range(count)]
    return [(source, source[::-1]) for source in sources]


@torch.no_grad()
def weights(network: EncoderDecoder, source: Ids, written: Ids) -> Tensor:
    """How much each letter written looks at each of the source, float32 `[written, source]`."""
    memory, state = network.encode(*padded([source]))
    outputs, _ = network.decoder(network.target(torch.tensor([[START, *written[:-1]]])), state)
    _, looks = network.attend(outputs, memory)
    return looks[0]


def draw(path: Path, source: Ids, written: Ids, looks: Tensor) -> None:
    """Draw the weights, a row for each letter written."""
    figure = Figure(figsize=(5.5, 5), dpi=80, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(looks.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(source)), LETTERS.words(source))
    axes.set_yticks(range(len(written)), LETTERS.words(written))
    axes.set_xlabel("read")
    axes.set_ylabel("written, from above")
    figure.colorbar(image, ax=axes, label="weight of attention")
    save(figure, path)

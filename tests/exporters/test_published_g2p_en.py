"""The published grapheme-to-phoneme network of the package g2p-en 2.1.0, exported.

The reference is the package's own algorithm in pure numpy, one word at a time.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

import rnnx
from published import published_file

pytestmark = pytest.mark.full

GRAPHEMES = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
START, END, MAX_LENGTH = 2, 3, 20
COMMON = """
the of and to in is you that it he was for on are as with his they at be this have from or one had
by word but not what all were we when your can said there use an each which she do how their if
will up other about out many then them these so some her would make like him into time has look
two more write go see number no way could people my than first water been call who oil its now
find long down day did get come made may part over new sound take only little work know place year
live me back give most very after thing our just name good sentence man think say great where help
through much before line right too mean old any same tell boy follow came want show also around
form three small set put end does another well large must big even such because turn here why ask
went men read need land different home us move try kind hand picture again change off play spell
air away animal house point page letter mother answer found study still learn should america world
"""
ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k kn l m n p ph pl pr qu r s sc sh"
VOWELS = "a ai au e ea ee ei i ie o oa oo ou u y"
CODAS = "b ck d f g gh l ll m mp n nd ng nt p r rt s ss st t th x z"


def _words() -> list[str]:
    """400 words: common ones, then pronounceable ones that no dictionary has."""
    rng = np.random.default_rng(2019)
    parts = [part.split() for part in (ONSETS, VOWELS, CODAS)]
    words = COMMON.split()
    while len(words) < 400:
        count = int(rng.integers(1, 4))
        words.append("".join(str(rng.choice(part)) for part in parts * count))
    return words


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    with np.load(published_file("g2p-en", "g2p_en/checkpoint20.npz")) as file:
        return dict(file)


class _G2p(nn.Module):
    """The package's network: a GRU over the letters, a GRUCell over the phonemes."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        super().__init__()
        size = weights["enc_w_hh"].shape[1]
        self.letters = nn.Embedding(*weights["enc_emb"].shape)
        self.encoder = nn.GRU(weights["enc_emb"].shape[1], size, batch_first=True)
        self.phonemes = nn.Embedding(*weights["dec_emb"].shape)
        self.decoder = nn.GRUCell(weights["dec_emb"].shape[1], size)
        self.head = nn.Linear(size, len(weights["fc_b"]))
        self.load_state_dict({name: torch.from_numpy(weights[key]) for name, key in KEYS.items()})

    def encode(self, src: Tensor, lengths: Tensor) -> tuple[tuple[()], Tensor]:
        packed = pack_padded_sequence(
            self.letters(src), lengths, batch_first=True, enforce_sorted=False
        )
        return (), self.encoder(packed)[1][0]

    def step(self, token: Tensor, state: Tensor, memory: tuple[()]) -> tuple[Tensor, Tensor]:
        state = self.decoder(self.phonemes(token), state)
        return self.head(state), state


KEYS = {
    "letters.weight": "enc_emb",
    "encoder.weight_ih_l0": "enc_w_ih",
    "encoder.weight_hh_l0": "enc_w_hh",
    "encoder.bias_ih_l0": "enc_b_ih",
    "encoder.bias_hh_l0": "enc_b_hh",
    "phonemes.weight": "dec_emb",
    "decoder.weight_ih": "dec_w_ih",
    "decoder.weight_hh": "dec_w_hh",
    "decoder.bias_ih": "dec_b_ih",
    "decoder.bias_hh": "dec_b_hh",
    "head.weight": "fc_w",
    "head.bias": "fc_b",
}


def _predict(weights: dict[str, np.ndarray], letters: list[int]) -> list[int]:
    """The phonemes of one word, as the package computes them."""
    h = np.zeros((1, weights["enc_w_hh"].shape[1]), np.float32)
    for letter in letters:
        h = _grucell(weights, "enc", weights["enc_emb"][[letter]], h)
    found: list[int] = []
    token = START
    for _ in range(MAX_LENGTH):
        h = _grucell(weights, "dec", weights["dec_emb"][[token]], h)
        token = int((h @ weights["fc_w"].T + weights["fc_b"]).argmax())
        if token == END:
            break
        found.append(token)
    return found


def _grucell(weights: dict[str, np.ndarray], side: str, x: np.ndarray, h: np.ndarray) -> np.ndarray:
    r_x, z_x, n_x = np.split(x @ weights[f"{side}_w_ih"].T + weights[f"{side}_b_ih"], 3, -1)
    r_h, z_h, n_h = np.split(h @ weights[f"{side}_w_hh"].T + weights[f"{side}_b_hh"], 3, -1)
    r, z = (1 / (1 + np.exp(-gate)) for gate in (r_x + r_h, z_x + z_h))
    return (1 - z) * np.tanh(n_x + r * n_h) + z * h


def _letters(word: str) -> list[int]:
    return [GRAPHEMES.index(letter) for letter in (*word, "</s>")]


def test_every_word_gets_the_phonemes_that_the_package_gives(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    rows = [_letters(word) for word in _words()]
    assert len(rows) == 400
    lengths = np.array([len(row) for row in rows])
    src = np.zeros((len(rows), lengths.max()), np.int64)
    for place, row in zip(src, rows, strict=True):
        place[: len(row)] = row
    example = torch.from_numpy(src[:4]), torch.from_numpy(lengths[:4])
    rnnx.export_seq2seq(
        _G2p(weights),
        example,
        tmp_path / "g2p",
        start=START,
        end=END,
        max_length=MAX_LENGTH,
        single_file=True,
    )
    expected = [_predict(weights, row) for row in rows]
    found = rnnx.Seq2Seq(tmp_path / "g2p").generate(src, lengths)
    same = sum(ids.tolist() == row for ids, row in zip(found.ids, expected, strict=True))
    assert same == len(rows)
    looped = rnnx.Model(tmp_path / "g2p" / "greedy.onnx").run({"src": src, "lengths": lengths})
    assert isinstance(looped, dict)
    assert [row[row != END].tolist() for row in looped["ids"]] == expected

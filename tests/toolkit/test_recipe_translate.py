"""The translation recipe: a component's strings in one part, and words that are copied."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rnnx
from rnnx.recipes import encoder_decoder, packages, translate
from rnnx.recipes.encoder_decoder import greedy
from rnnx.recipes.encoder_decoder_copying import CopyCorpus
from rnnx.recipes.encoder_decoder_data import (
    END,
    START,
    UNKNOWN,
    calibration,
    example,
    most_associated,
    part_of,
)
from rnnx.recipes.packages import DataError
from rnnx.recipes.recipe import CELLS, generated


def _has_strings() -> bool:
    try:
        return bool(distribution("homeassistant").files)
    except PackageNotFoundError:
        return False


needs_strings = pytest.mark.skipif(not _has_strings(), reason="homeassistant is not installed")
GERMAN = {"red": "rot", "blue": "blau", "big": "groß", "house": "Haus", "dog": "Hund"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> CopyCorpus:
    return translate.load()


def made_up(components: int) -> list[tuple[str, tuple[str, str]]]:
    """Strings of words that translate one by one, and of a name that stays as it is."""
    rng = np.random.default_rng(0)
    found = []
    for i in range(components):
        drawn = list(rng.choice(list(GERMAN), rng.integers(2, 5)))
        english, german = [*drawn, f"Name{i}"], [*(GERMAN[word] for word in drawn), f"Name{i}"]
        found.append((f"component {i}", (" ".join(english), " ".join(german))))
    return found


def test_what_stands_under_the_same_key_belongs_together(tmp_path: Path) -> None:
    english = {"a": {"b": "House", "only": "Dog"}, "c": "Red"}
    (tmp_path / "en.json").write_text(json.dumps(english))
    assert list(translate.translations(tmp_path)) == []
    (tmp_path / "de.json").write_text(json.dumps({"c": "Rot", "a": {"b": "Haus"}}))
    assert list(translate.translations(tmp_path)) == [("House", "Haus"), ("Red", "Rot")]


def test_a_component_stands_in_one_part_and_a_string_too() -> None:
    strings = [(f"c{i}", (text, text)) for i in range(60) for text in (f"own {i}", "shared")]
    data = translate.corpus(strings)
    sources = [{" ".join(source) for source, _ in part} for part in (data.train, data.test)]
    own = [
        {f"own {i}" for i in range(60) if part_of(f"c{i}") == part} for part in ("train", "test")
    ]
    assert own[0]
    assert own[1]
    assert sources == [own[0] | {"shared"}, own[1]]


@needs_strings
def test_no_english_string_stands_in_two_parts(data: CopyCorpus) -> None:
    sources = [{source for source, _ in part} for part in (data.train, data.validation, data.test)]
    assert [len(part) > 500 for part in sources] == [True, True, True]
    assert len(set.union(*sources)) == sum(map(len, sources))


@needs_strings
def test_word_by_word_beats_the_source_and_not_the_truth(data: CopyCorpus) -> None:
    source, words = translate.baselines(data).values()
    truth = [target for _, target in data.test]
    assert source < words < translate.bleu(truth, data) == pytest.approx(100)
    assert translate.chrf(truth, data) == pytest.approx(100)


def test_the_score_is_chrf_counted_by_hand() -> None:
    known = translate.corpus(made_up(9)).source
    data = CopyCorpus([], [], [((), ("ab",))], known, known, {})
    # of "a", "b" and "ab" against "a", "c" and "ac": one in two single characters, no pair
    precision = recall = (1 / 2 + 0) / 2
    f2 = 5 * precision * recall / (4 * precision + recall)
    assert translate.chrf([("ac",)], data) == pytest.approx(100 * f2)


def test_the_dictionary_finds_what_goes_together() -> None:
    pairs = [(("the", "dog"), ("der", "Hund")), (("the", "red"), ("der", "rote"))]
    pairs += [(("red", "dog"), ("rote", "Hund"))]
    assert most_associated(pairs) == {"the": "der", "dog": "Hund", "red": "rote"}


def test_a_name_goes_with_itself_rather_than_with_what_stands_beside_it() -> None:
    pairs = [(("open", "Aranet"), ("Aranet", "öffnen"))]
    assert most_associated(pairs) == {"open": "öffnen", "Aranet": "Aranet"}


@pytest.mark.parametrize(
    "text", ["Wähle „{name}“ (oder nicht), bitte: ja/nein!", "UV-Index", "5 Uhr", "[Link]"]
)
def test_words_make_the_text_again(text: str) -> None:
    assert translate.joined(translate.words(text)) == text


@given(st.lists(st.sampled_from(["red", "dog", "new", "other", "{name}", "."]), max_size=8))
def test_copying_writes_the_german_word_or_the_word_itself(source: list[str]) -> None:
    data = dataclasses.replace(translate.corpus(made_up(30)), copies={"red": "rot", "new": "neu"})
    copied = tuple({"red": "rot", "new": "neu"}.get(word, word) for word in source)
    pairs, target = data.pair((tuple(source), (*copied, "nowhere")))
    assert [read for read, _ in pairs] == data.source.ids(source)
    assert data.written(tuple(source), [copy for _, copy in pairs]) == copied
    assert target == [*(copy for _, copy in pairs), UNKNOWN]
    other = {copy for _, copy in pairs if copy >= len(data.target)}
    assert other == {len(data.target) + i for i in range(len({*copied} - {*data.target.tokens}))}


def test_it_learns_words_and_copies_names_it_never_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_decoder, "_LEARNING_RATE", 0.005)
    monkeypatch.setattr(translate, "_WORDS", 4 + 2 * len(GERMAN))
    data = translate.corpus(made_up(500))
    model = translate.train(data, cell="gru", full=False, seed=0, tell=len, epochs=6)
    outputs = data.outputs(lambda sources: greedy(model, sources, 8))
    names = [source[-1] in output for output, (source, _) in zip(outputs, data.test, strict=True)]
    assert np.mean(names) > 0.8
    assert translate.bleu(outputs, data) > 2 * translate.baselines(data)["the source itself"]


@pytest.mark.full
@pytest.mark.parametrize("cell", CELLS)
def test_the_artifact_writes_what_torch_writes(cell: str, tmp_path: Path) -> None:
    data = translate.corpus(made_up(200))
    model = translate.train(data, cell=cell, full=False, seed=0, tell=len, epochs=2)
    sizes = {"start": START, "end": END, "max_length": 9}
    rnnx.export_seq2seq(model, example(data), tmp_path / "onnx", **sizes)
    sources = calibration(data)
    outputs = greedy(model, sources, 9)
    assert len({tuple(ids) for ids in outputs}) > 1
    found = generated(str(tmp_path / "onnx"))(sources)
    assert [ids.tolist() for ids in found] == outputs


def test_missing_data_gives_the_line_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RNNX_DATA", str(tmp_path))
    monkeypatch.setattr(packages, "_installed", lambda name: None)
    with pytest.raises(DataError) as raised:
        translate.load()
    assert raised.value.hint == "rnnx demo translate --fetch"

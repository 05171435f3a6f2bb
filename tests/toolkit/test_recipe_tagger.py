"""The tagger: what it reads, a split that does not leak, honest scores, how far it looks ahead."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rnnx
from rnnx.recipes import find, tagger
from rnnx.recipes.packages import DataError
from rnnx.recipes.recipe import Run, in_torch, streamed
from rnnx.recipes.tagger import Tagger, accuracy, baselines, score
from rnnx.recipes.tagger_data import TAGS, Treebank, load, sentences, split
from rnnx.recipes.words import RARE, Sentence, Vocabulary, batches, shape
from rnnx_runtime.errors import InputError

CONLLU = """\
# sent_id = FOLHA_DOC000001_SENT003
# text = Vou à praia .
1\tVou\tir\tVERB\t_\t_
2-3\tà\t_\t_\t_\t_
2\ta\ta\tADP\t_\t_
3\ta\to\tDET\t_\t_
4\tpraia\tpraia\tNOUN\t_\t_
5\t.\t.\tPUNCT\t_\t_

# sent_id = FOLHA_DOC000007_SENT001
1\tSol\tsol\tNOUN\t_\t_
"""
TAGGED = st.builds(
    lambda words: Sentence(tuple(words), tuple("NOUN" for _ in words)),
    st.lists(st.sampled_from("abc"), min_size=1, max_size=3),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More cost time at this size, above all where other tests run beside."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small() -> Treebank:
    """Made-up sentences: the ending tells the tag, but for a word whose tag the next one tells."""
    rng = random.Random(0)
    stems = ["cas", "port", "mes", "livr", "cant", "fal", "and", "corr"]
    treebank = []
    for article in range(40):
        rows = [_row(rng, stems) for _ in range(4)]
        words, tags = zip(*(pair for row in rows for pair in row), strict=True)
        treebank.append((str(article), Sentence(words, tags)))
    return split(treebank)


def _row(rng: random.Random, stems: list[str]) -> list[tuple[str, str]]:
    ending, tag, before = rng.choice([("a", "NOUN", "DET"), ("ou", "VERB", "PRON")])
    return [("a", before), (rng.choice(stems) + ending, tag)]


@pytest.fixture(scope="module")
def porttinari() -> Treebank:
    try:
        return load()
    except DataError as error:
        pytest.skip(f"{error}; {error.hint}")


def knowing(data: Treebank, wrong: int = 0) -> Run:
    """Gives each sentence of the test part its tags, but for the first `wrong` words of each."""
    answers = iter(data.test)

    def run(x: np.ndarray) -> np.ndarray:
        tags = [TAGS.index(tag) for tag in next(answers).tags]
        scores = np.eye(len(TAGS), dtype=np.float32)[tags]
        scores[:wrong] = scores[:wrong, ::-1]
        return scores[None]

    return run


def test_what_is_contracted_is_read_as_the_words_it_stands_for() -> None:
    first, second = sentences(CONLLU.splitlines(keepends=True))
    tags = ("VERB", "ADP", "DET", "NOUN", "PUNCT")
    assert first == ("DOC000001", Sentence(("Vou", "a", "a", "praia", "."), tags))
    assert second == ("DOC000007", Sentence(("Sol",), ("NOUN",)))


@given(st.lists(st.tuples(st.sampled_from("1234567890"), TAGGED), min_size=12, max_size=20))
def test_no_sentence_is_in_two_parts_nor_twice_in_one(
    treebank: list[tuple[str, Sentence]],
) -> None:
    articles = {sentence.words: article for article, sentence in treebank}
    if len(set(articles.values())) < 5:
        return  # too few articles for a part of each
    parts = split(treebank)
    seen = [s.words for part in (parts.train, parts.validation, parts.test) for s in part]
    assert sorted(seen) == sorted(articles)
    train, test = ({articles[s.words] for s in part} for part in (parts.train, parts.test))
    assert train.isdisjoint(test)


def test_porttinari_is_split_by_article(porttinari: Treebank) -> None:
    parts = [porttinari.train, porttinari.validation, porttinari.test]
    assert {tag for part in parts for s in part for tag in s.tags} <= set(TAGS)
    words = [{s.words for s in part} for part in parts]
    assert sum(map(len, words)) == len(set.union(*words)) == sum(map(len, parts))
    assert 0.75 < len(porttinari.train) / sum(map(len, parts)) < 0.85


def test_a_missing_data_package_gives_the_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNX_DATA", str(tmp_path))
    monkeypatch.setattr("rnnx.recipes.packages._installed", lambda name: None)
    with pytest.raises(DataError, match="dante-corpora") as raised:
        load()
    assert raised.value.hint == "rnnx demo tagger --fetch"


def test_shapes_are_runs_of_kinds() -> None:
    assert [shape(word) for word in ("Rio-92", "2,50", "São", "...", "BNDES")] == [
        "Xx-d",
        "d,d",
        "Xx",
        ".",
        "X",
    ]


def test_clues_seen_once_are_rare_and_others_have_numbers_of_their_own() -> None:
    words = Vocabulary([Sentence(("casa", "casa", "mesa"), ("NOUN",) * 3)])
    casa, mesa, new = words.encode(("casa", "mesa", "XVII"))
    assert casa[0] != RARE == mesa[0]
    assert mesa[3] == casa[3] != RARE  # both end in "sa"
    assert (new == RARE).all()
    assert all(
        clue < size for clue, size in zip(words.encode(["casa"])[0], words.sizes, strict=True)
    )


@given(st.lists(TAGGED, min_size=1), st.integers(0, 9))
def test_batches_hold_every_sentence_once_and_only_words_are_hidden(
    part: list[Sentence], seed: int
) -> None:
    vocabulary = Vocabulary(part)
    made = batches(part, vocabulary, TAGS, size=4, order=random.Random(seed))
    rows = [row for x, tags in made for row in zip(x[..., 1:].tolist(), tags.tolist(), strict=True)]
    expected = [
        (vocabulary.encode(s.words)[:, 1:].tolist(), [TAGS.index(tag) for tag in s.tags])
        for s in part
    ]
    assert sorted(rows) == sorted(expected)
    assert all(len(x) <= 4 for x, _ in made)


def test_one_word_in_ten_is_hidden() -> None:
    part = [Sentence(("casa",) * 50, ("NOUN",) * 50)] * 40
    made = batches(part, Vocabulary(part), TAGS, size=8, order=random.Random(0))
    hidden = torch.cat([(x[..., 0] == RARE).float().mean()[None] for x, _ in made]).mean()
    assert 0.08 < hidden < 0.12


def test_accuracy_is_counted_by_words(small: Treebank) -> None:
    assert score(knowing(small), small) == 100
    words = sum(len(s.words) for s in small.test)
    expected = 100 * (1 - 3 * len(small.test) / words)
    assert score(knowing(small, wrong=3), small) == pytest.approx(expected)


def test_the_baseline_is_counted_by_hand() -> None:
    train = [Sentence(("a", "a", "a", "sol"), ("DET", "DET", "ADP", "NOUN"))]
    test = [Sentence(("a", "a", "lua", "sol"), ("DET", "ADP", "NOUN", "NOUN"))]
    data = Treebank(train, [], test, Vocabulary(train))
    # "a" is DET, right once of twice; "lua" is not known: DET; "sol" is NOUN.
    assert baselines(data) == {"most frequent tag": 50.0}


@pytest.mark.parametrize("both_ways", [False, True])
def test_training_beats_the_baseline(
    small: Treebank, both_ways: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tagger, "_BATCH", 4)
    model = tagger.train(small, both_ways=both_ways)
    assert not model.training
    reached = score(in_torch(model), small)
    (usual,) = baselines(small).values()
    assert usual < 88 < 95 < reached


def test_the_weights_are_the_validation_parts_best(
    small: Treebank, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    model = tagger.train(small, tell=told.append)
    best = max(float(message.split(": ")[1].split()[0]) for message in told)
    assert accuracy(in_torch(model), small, small.validation) == pytest.approx(best, abs=0.01)


@given(st.sampled_from(("rnn", "gru", "lstm")), st.integers(0, 11))
def test_it_sees_two_words_ahead_and_no_more(cell: str, word: int) -> None:
    torch.manual_seed(0)
    model = Tagger((9,) * 5, cell=cell, hidden_size=4).eval()
    x = torch.randint(0, 4, (1, 12, 5))
    other = x.clone()
    other[:, word] += 4
    differs = (model(x) != model(other)).any(-1)[0]
    assert not differs[: max(word - 2, 0)].any()
    assert differs[max(word - 2, 0)]


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(InputError, match="'gur'"):
        Tagger((9,) * 5, cell="gur")


def test_one_streams_and_one_does_not() -> None:
    assert (find("tagger").streams, find("streaming_tagger").streams) == (False, True)


@pytest.mark.full
def test_a_stream_of_words_gives_what_the_sentence_gives(small: Treebank, tmp_path: Path) -> None:
    model = Tagger(small.vocabulary.sizes, hidden_size=8).eval()
    path = tmp_path / "tagger.onnx"
    rnnx.export(model, tagger.example(small), path, streaming=True)
    x = tagger.calibration(small)[0]
    np.testing.assert_allclose(streamed(str(path))(x), in_torch(model)(x), atol=1e-5)
    assert rnnx.load_contract(path).outputs[0].delay == 2

"""The entities: a split that does not leak, conlleval's rules, the chain against enumeration."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rnnx
from rnnx.recipes import entities as recipe
from rnnx.recipes.entities import (
    Chain,
    Parser,
    baselines,
    decoder,
    entities,
    entity_f1,
    score,
)
from rnnx.recipes.entities_data import Addresses, addresses, chunked, load, split
from rnnx.recipes.packages import DataError
from rnnx.recipes.recipe import decoded, in_torch
from rnnx.recipes.words import Sentence, Vocabulary

XML = """<AddressCollection>
  <AddressString><AddressNumber>12</AddressNumber> <StreetName>Le</StreetName>
  <StreetName>Moyne</StreetName> <PlaceName>Chicago,</PlaceName></AddressString>
</AddressCollection>"""
LABELS = st.lists(st.sampled_from("ABC"), max_size=8)
TAGS = 3


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More cost time at this size, above all where other tests run beside."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small() -> Addresses:
    """Made-up addresses: what a name is, is told by what stands before it."""
    rng = random.Random(0)
    names = ["Washington", "Lincoln", "Madison", "Jackson"]
    rows = []
    for number in range(120):
        street, place = (rng.choices(names, k=rng.choice([1, 2])) for _ in range(2))
        words = (str(number), *street, "St", *place)
        labels = ("Number", *["Street"] * len(street), "Type", *["Place"] * len(place))
        rows.append(Sentence(words, chunked(labels)))
    return split(rows)


@pytest.fixture(scope="module")
def usaddress() -> Addresses:
    try:
        return load()
    except DataError as error:
        pytest.skip(f"{error}; {error.hint}")


@pytest.fixture
def chain() -> Chain:
    torch.manual_seed(0)
    made = Chain(TAGS)
    for scores in made.parameters():
        torch.nn.init.normal_(scores)
    return made


def by_hand(chain: Chain, emissions: torch.Tensor, tags: Sequence[int]) -> float:
    """The score of the tags of one sequence, emissions `[time, tags]`, added up."""
    total = chain.start[tags[0]] + chain.end[tags[-1]]
    for frame, tag in enumerate(tags):
        total = total + emissions[frame, tag]
    for before, behind in itertools.pairwise(tags):
        total = total + chain.transitions[before, behind]
    return total.item()


def all_scores(chain: Chain, emissions: torch.Tensor) -> dict[tuple[int, ...], float]:
    ways = itertools.product(range(TAGS), repeat=len(emissions))
    with torch.no_grad():
        return {way: by_hand(chain, emissions, way) for way in ways}


def test_an_element_is_a_word_and_its_name_the_label() -> None:
    (row,) = addresses(XML)
    assert row.words == ("12", "Le", "Moyne", "Chicago,")
    assert row.tags == ("B-AddressNumber", "B-StreetName", "I-StreetName", "B-PlaceName")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-A I-A B-A", {("A", 0, 2), ("A", 2, 3)}),
        ("O I-A I-A O", {("A", 1, 3)}),  # a lone I- begins one
        ("B-A I-B I-B", {("A", 0, 1), ("B", 1, 3)}),  # and so does one of another label
        ("I-A O I-A", {("A", 0, 1), ("A", 2, 3)}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_entities_are_conllevals(tags: str, expected: set[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == expected


@given(LABELS)
def test_entities_are_the_runs_of_labels(labels: list[str]) -> None:
    runs = [list(run) for _, run in itertools.groupby(enumerate(labels), lambda pair: pair[1])]
    assert entities(chunked(labels)) == {(run[0][1], run[0][0], run[-1][0] + 1) for run in runs}


def test_f1_as_counted_by_hand() -> None:
    truth = ("B-A", "I-A", "B-B", "B-C")
    part = [Sentence(("w",) * 4, truth)] * 2
    # Of three entities B is found, A too short, C not; of the other address all are.
    found = [("B-A", "O", "B-B", "O"), truth]
    assert entity_f1(found, part) == pytest.approx(100 * 2 * 4 / (5 + 6))
    assert entity_f1([truth, truth], part) == 100


@given(st.lists(st.tuples(LABELS, st.booleans()), min_size=20))
def test_no_address_is_in_two_parts_nor_twice(rows: list[tuple[list[str], bool]]) -> None:
    written = [
        Sentence(tuple(word.lower() if low else word for word in words), chunked(words))
        for words, low in rows
        if words
    ]
    parts = split([*written, Sentence(("x",), ("B-A",))])
    seen = [
        tuple(word.lower() for word in row.words)
        for part in (parts.train, parts.validation, parts.test)
        for row in part
    ]
    assert len(seen) == len(set(seen))
    assert set(seen) == {tuple(word.lower() for word in row.words) for row in written} | {("x",)}


def test_usaddress_is_split_without_leaks(usaddress: Addresses) -> None:
    parts = (usaddress.train, usaddress.validation, usaddress.test)
    seen = [" ".join(row.words).lower() for part in parts for row in part]
    assert len(seen) == len(set(seen)) > 1400
    assert {tag for row in usaddress.train for tag in row.tags} == set(usaddress.tags)


def test_a_missing_data_package_gives_the_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNX_DATA", str(tmp_path))
    monkeypatch.setattr("rnnx.recipes.packages._installed", lambda name: None)
    with pytest.raises(DataError, match="usaddress") as raised:
        load()
    assert raised.value.hint == "rnnx demo entities --fetch"


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_chain_scores_as_enumeration_does(chain: Chain, frames: int) -> None:
    emissions = torch.randn(2, frames, TAGS)
    tags = torch.randint(0, TAGS, (2, frames))
    found = chain.log_likelihood(emissions, tags).detach()
    for row in range(2):
        scores = all_scores(chain, emissions[row])
        own = scores[tuple(tags[row].tolist())]
        expected = own - math.log(sum(math.exp(score) for score in scores.values()))
        assert found[row].item() == pytest.approx(expected, abs=1e-4)


def test_the_decoder_finds_the_best_tags(chain: Chain, small: Addresses) -> None:
    model = Parser(small)
    model.chain = chain
    emissions = torch.randn(1, 5, TAGS)
    scores = all_scores(chain, emissions[0])
    best = decoder(model)(emissions.numpy())
    assert tuple(best.tolist()) == max(scores, key=scores.__getitem__)


def test_the_baseline_is_counted_by_hand() -> None:
    train = [Sentence(("1", "Main", "Main"), ("B-N", "B-S", "I-S"))] * 2
    train += [Sentence(("Main", "1"), ("B-S", "B-N"))]
    test = [Sentence(("1", "Main", "Elm"), ("B-N", "B-S", "B-P"))]
    data = Addresses(train, [], test, ("B-N", "B-S", "I-S"), Vocabulary(train))
    # Main is B-S three times of five; Elm is not known, and B-N the first of the most frequent.
    assert baselines(data) == {"most frequent tag": pytest.approx(100 * 2 * 2 / (3 + 3))}


def test_training_beats_the_baseline(small: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "_BATCH", 4)
    monkeypatch.setattr(recipe, "_EPOCHS", 6)
    model = recipe.train(small)
    reached = score(decoded(in_torch(model), decoder(model)), small)
    (usual,) = baselines(small).values()
    assert usual < 80 < 95 < reached


def test_what_follows_what_is_learnt(small: Addresses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "_EPOCHS", 2)
    model = recipe.train(small)
    transitions = model.chain.transitions.detach().numpy()
    place, street = (small.tags.index(tag) for tag in ("I-Place", "B-Street"))
    number = small.tags.index("B-Number")
    assert transitions[number, street] > transitions[number, place]
    assert np.isfinite(transitions).all()


@pytest.mark.full
def test_a_stream_finds_the_tags_word_after_word(small: Addresses, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = Parser(small, hidden_size=8).eval(), tmp_path / "entities.onnx"
    for scores in model.chain.parameters():
        torch.nn.init.normal_(scores)
    rnnx.export(model, recipe.example(small), path, streaming=True)
    whole, chain = decoded(in_torch(model), decoder(model)), model.chain
    transitions, start, end = (s.detach().numpy() for s in chain.parameters())
    kept = {"start_transitions": start, "end_transitions": end}
    stream, search = rnnx.Stream(path), rnnx.ViterbiStream(transitions, **kept)
    for x in recipe.calibration(small)[:5]:
        stream.reset()
        search.reset()
        words = [*(stream.feed(x[:, [i]])[0] for i in range(x.shape[1])), stream.flush()[0]]
        found = np.concatenate([*(search.feed(word) for word in words), search.flush()])
        np.testing.assert_array_equal(found, whole(x))

"""The character language model: books apart, bits as counted, a state carried."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnx.recipes import charlm, charlm_data
from rnnx.recipes.charlm import LanguageModel, bits_per_character, to_stretches, train
from rnnx.recipes.charlm_data import Books, ngram_bits, to_ids
from rnnx.recipes.packages import DataError
from rnnx.recipes.recipe import in_torch

ALPHABET = "ab c"
CELLS = ("rnn", "gru", "lstm")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More cost time at this size, above all where other tests run beside."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bible() -> Books:
    try:
        return charlm.load()
    except DataError as error:
        pytest.skip(f"{error}: {error.hint}")


def repeating(times: int = 6000) -> Books:
    """A text that an order-2 model learns, and one that hardly needs more."""
    ids = to_ids("abc ab c" * times, ALPHABET)
    return Books(ALPHABET, ids, ids[:2000], ids[1000:3000])


def counted_bits(data: Books, order: int) -> float:
    """Witten and Bell's recursion, one character after the other."""
    follows: list[defaultdict[tuple[int, ...], Counter[int]]] = []
    for length in range(order + 1):
        table: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for i in range(length, len(data.train)):
            table[tuple(data.train[i - length : i])][data.train[i]] += 1
        follows.append(table)

    def prob(context: tuple[int, ...], character: int) -> float:
        shorter = prob(context[1:], character) if context else 1 / len(data.alphabet)
        seen = follows[len(context)][context]
        if not seen:
            return shorter
        return (seen[character] + len(seen) * shorter) / (seen.total() + len(seen))

    test = data.test
    costs = [-math.log2(prob(tuple(test[i - order : i]), test[i])) for i in range(order, len(test))]
    return sum(costs) / len(costs)


def test_the_parts_are_different_books(bible: Books) -> None:
    texts = ["".join(bible.alphabet[i] for i in part) for part in (bible.train, bible.test)]
    assert "In the beginning God created the heaven and the earth." in texts[0]
    assert "Now it came to pass in the days of Ahasuerus" in texts[1]
    assert "Now it came to pass in the days of Ahasuerus" not in texts[0]


def test_hardly_a_verse_of_the_test_part_stands_in_training(bible: Books) -> None:
    trained, held = (
        [line for line in "".join(bible.alphabet[i] for i in part).split("\n") if line]
        for part in (bible.train, bible.test)
    )
    verses = set(trained)
    assert sum(verse in verses for verse in held) / len(held) < 0.005


def test_a_missing_package_names_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, path: str) -> None:
        raise DataError("missing", hint="rnnx demo charlm --fetch")

    monkeypatch.setattr(charlm_data, "locate", missing)
    with pytest.raises(DataError):
        charlm.load()


@given(st.text(ALPHABET, min_size=3, max_size=60), st.text(ALPHABET, min_size=4), st.integers(0, 2))
def test_ngrams_cost_what_is_counted_one_by_one(text: str, test: str, order: int) -> None:
    ids = to_ids(text, ALPHABET)
    data = Books(ALPHABET, ids, ids, to_ids(test, ALPHABET))
    assert ngram_bits(data, order) == pytest.approx(counted_bits(data, order))


def test_a_form_that_knows_nothing_costs_the_alphabets_bits() -> None:
    ids = to_ids("abc " * 5, ALPHABET)
    assert bits_per_character(lambda x: np.zeros((*x.shape, 4)), ids) == pytest.approx(2)


def test_a_form_that_knows_all_costs_nothing() -> None:
    ids = to_ids("abc " * 5, ALPHABET)

    def knowing(x: np.ndarray) -> np.ndarray:  # what follows a is b, and so on
        return 100.0 * np.eye(4)[(x + 1) % 4]

    following = np.arange(20) % 4
    assert bits_per_character(knowing, following) == pytest.approx(0)
    assert bits_per_character(knowing, ids[::-1].copy()) > 10


def test_stretches_go_on_where_the_one_before_ended() -> None:
    ids = np.arange(32 * 64 * 3 + 17)
    stretches = to_stretches(ids)
    assert stretches.shape == (3, 32, 65)
    assert torch.equal(stretches[1:, :, 0], stretches[:-1, :, -1])
    inputs = stretches[:, :, :-1].transpose(0, 1).reshape(-1)
    assert torch.equal(inputs, torch.arange(32 * 64 * 3))


@pytest.mark.parametrize("cell", CELLS)
def test_steps_with_the_state_carried_are_the_whole(cell: str) -> None:
    model, x = LanguageModel(cell, ALPHABET, 8), torch.randint(4, (2, 9))
    state, pieces = None, []
    for piece in (x[:, :4], x[:, 4:5], x[:, 5:]):
        logits, state = model.step(piece, state)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), model(x))


@pytest.mark.parametrize(
    "cell", ["lstm", *(pytest.param(cell, marks=pytest.mark.full) for cell in ("rnn", "gru"))]
)
def test_training_beats_the_frequencies_of_characters(cell: str) -> None:
    data = repeating()
    model = train(data, cell=cell)
    assert bits_per_character(in_torch(model), data.test) < ngram_bits(data, 0) / 2


def test_the_same_seed_gives_the_same_weights() -> None:
    mine, theirs = (train(repeating(600), cell="rnn", seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)

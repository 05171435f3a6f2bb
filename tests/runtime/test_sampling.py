"""Sampling, held against probabilities computed in plain Python, and drawn against them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx import InputError, sample, sampling_probs

LOGITS = st.lists(
    st.sampled_from([-math.inf, -3.0, 0.0, 0.0, 0.5, 1.0, 2.5]), min_size=1, max_size=8
).filter(lambda row: max(row) > -math.inf)
DRAWS = 20_000


def _plain_probs(
    logits: list[float], temperature: float, top_k: int | None, top_p: float
) -> list[float]:
    weights = [math.exp((value - max(logits)) / temperature) for value in logits]
    ranked = sorted(range(len(weights)), key=lambda i: (-weights[i], i))[:top_k]
    total = math.fsum(weights[i] for i in ranked)
    kept: list[int] = []
    while ranked and math.fsum(weights[i] for i in kept) < top_p * total:
        kept.append(ranked.pop(0))
    total = math.fsum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(weights))]


@given(
    logits=LOGITS,
    temperature=st.floats(0.1, 10),
    top_k=st.none() | st.integers(1, 10),
    top_p=st.floats(0.001, 1),
)
def test_probabilities_are_the_plain_ones(
    logits: list[float], temperature: float, top_k: int | None, top_p: float
) -> None:
    options: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    (found,) = sampling_probs([logits], **options)
    assert found == pytest.approx(_plain_probs(logits, **options), abs=1e-12)
    assert math.fsum(found) == pytest.approx(1)


def _hold_to_chance(ids: np.ndarray, probs: np.ndarray) -> None:
    """Pearson's chi-square test, at a value that chance exceeds once in 100 000."""
    counts, possible = np.bincount(ids, minlength=len(probs)), probs > 0
    assert not counts[~possible].any()
    expected = len(ids) * probs[possible]
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    freedom = possible.sum() - 1
    # Wilson and Hilferty: the cube root of chi-square by its freedom is nearly normal.
    bound = freedom * (1 - 2 / (9 * freedom) + 4.27 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < bound


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.8}, {"top_k": 4, "top_p": 0.9}]
)
def test_ids_are_drawn_with_their_probabilities(options: dict[str, Any]) -> None:
    row = [0.0, -math.inf, 1.0, 0.3, -1.0, 1.0]
    (probs,) = sampling_probs([row], **options)
    ids = sample(np.tile(row, (DRAWS, 1)), np.random.default_rng(0), **options)
    assert ids.dtype == np.int64
    _hold_to_chance(ids, probs)


def test_a_wrong_temperature_is_caught_by_the_frequencies() -> None:
    row = [0.0, 1.0, 0.3, -1.0]
    ids = sample(np.tile(row, (DRAWS, 1)), np.random.default_rng(0), temperature=1.1)
    with pytest.raises(AssertionError):
        _hold_to_chance(ids, sampling_probs([row])[0])


def test_an_id_too_many_is_caught() -> None:
    row = [0.0, 1.0, 0.3, -1.0]
    ids = sample(np.tile(row, (DRAWS, 1)), np.random.default_rng(0), top_k=3)
    with pytest.raises(AssertionError):
        _hold_to_chance(ids, sampling_probs([row], top_k=2)[0])


@given(seed=st.integers(0, 10**6), rows=st.integers(0, 5))
def test_a_seed_gives_its_ids_and_each_sequence_its_own_number(seed: int, rows: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 1, (rows, 7))
    ids = sample(logits, np.random.default_rng(seed), top_k=5)
    assert ids.tolist() == sample(logits, np.random.default_rng(seed), top_k=5).tolist()
    rng = np.random.default_rng(seed)
    assert ids.tolist() == [int(sample(row[None], rng, top_k=5)[0]) for row in logits]


@given(logits=LOGITS, seed=st.integers(0, 100))
def test_the_surest_choices_are_greedy(logits: list[float], seed: int) -> None:
    best = logits.index(max(logits))
    rng = np.random.default_rng(seed)
    assert sample([logits], rng, top_k=1) == [best]
    assert sample([logits], rng, top_p=5e-324) == [best]
    assert logits[sample([logits], rng, temperature=5e-324)[0]] == max(logits)


def test_of_equal_ids_at_the_last_place_the_lower_is_kept() -> None:
    assert (sampling_probs([[1.0, 2.0, 1.0, 1.0]], top_k=2)[0] > 0).tolist() == [1, 1, 0, 0]
    assert (sampling_probs([[0.0, 0.0, 0.0, 0.0]], top_p=0.5)[0] > 0).tolist() == [1, 1, 0, 0]


def test_a_top_p_of_one_keeps_even_what_rounding_would_lose() -> None:
    probs = sampling_probs([[0.0, -45.0]])[0]
    assert 0 < probs[1] < 1e-19
    assert sampling_probs([[0.0, -45.0]], top_p=1)[0].tolist() == probs.tolist()


class _Loaded(np.random.Generator):
    """Draws always the same number."""

    def __init__(self, number: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.number = number

    def random(self, size: Any = None) -> Any:  # type: ignore[override]
        return np.full(size, self.number)


@given(logits=LOGITS)
def test_the_smallest_and_the_largest_number_draw_possible_ids(logits: list[float]) -> None:
    possible = np.flatnonzero(np.array(logits) > -math.inf)
    assert sample([logits], _Loaded(0.0)) == [possible[0]]
    assert sample([logits], _Loaded(np.nextafter(1, 0))) == [possible[-1]]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"logits": [[0.0, math.nan]]}, r"logits holds nan at index \[0, 1\]"),
        ({"logits": [[math.inf, 0.0]]}, r"logits holds inf at index \[0, 0\]"),
        ({"logits": [[0.0], [-math.inf]]}, "no id is possible for sequence 1"),
        ({"logits": [0.0, 1.0]}, r"logits has shape \[2\], but \[batch, vocabulary\]"),
        ({"logits": np.zeros((2, 0))}, r"logits has shape \[2, 0\]"),
        ({"logits": [["a"]]}, "logits is <U1"),
        ({"logits": [[1.0], [1.0, 2.0]]}, "logits is not an array"),
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": math.nan}, "top_p is nan"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(arguments: dict[str, Any], fault: str) -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    with pytest.raises(InputError, match=fault):
        sample(**{"logits": [[0.0, 1.0]], "rng": rng} | arguments)
    assert rng.bit_generator.state == before

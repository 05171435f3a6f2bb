"""The searches, held against plain ones in Python loops."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rnnx_runtime.decoding import BeamSearch, GreedySearch, beam_step, greedy_step, log_softmax
from searching import Hypothesis, beam_search, exhaustive_search

VOCABULARY, END = 4, 1
Logits = Callable[[tuple[int, ...]], np.ndarray]


def _decoder(seed: int) -> Logits:
    """Random logits [VOCABULARY] for each prefix, whatever is asked first."""

    def logits(prefix: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([seed, len(prefix), *prefix]).normal(0, 2, VOCABULARY)

    return logits


def _plain_log_probs(logits: Logits) -> Callable[[tuple[int, ...]], list[float]]:
    def log_probs(prefix: tuple[int, ...]) -> list[float]:
        row = logits(prefix).tolist()
        total = math.log(math.fsum(math.exp(value) for value in row))
        return [value - total for value in row]

    return log_probs


def _greedily(seeds: list[int], max_length: int) -> tuple[list[Hypothesis], int]:
    """What GreedySearch finds for each decoder, and after how many steps it is done."""
    search = GreedySearch(len(seeds), END)
    prefixes: list[tuple[int, ...]] = [()] * len(seeds)
    steps = 0
    while not search.done and steps < max_length:
        rows = [_decoder(seed)(prefix) for seed, prefix in zip(seeds, prefixes, strict=True)]
        ids = search.advance(log_softmax(np.stack(rows)))
        prefixes = [(*prefix, int(i)) for prefix, i in zip(prefixes, ids, strict=True)]
        steps += 1
    return _listed(search), steps


def _by_beams(seeds: list[int], beam: int, max_length: int) -> tuple[list[Hypothesis], int]:
    """What BeamSearch finds; a row's prefix is its state, and follows the parents it names."""
    search = BeamSearch(len(seeds), beam, END)
    prefixes: list[tuple[int, ...]] = [()] * (len(seeds) * beam)
    steps = 0
    while not search.done and steps < max_length:
        rows = [_decoder(seeds[row // beam])(prefix) for row, prefix in enumerate(prefixes)]
        ids, parents = search.advance(log_softmax(np.stack(rows)))
        prefixes = [(*prefixes[p], int(i)) for p, i in zip(parents, ids, strict=True)]
        steps += 1
    return _listed(search), steps


def _listed(search: GreedySearch | BeamSearch) -> list[Hypothesis]:
    ids, scores = search.hypotheses()
    return [(row.tolist(), float(score)) for row, score in zip(ids, scores, strict=True)]


def _agree(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [ids for ids, _ in found] == [ids for ids, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected])


@given(
    logits=arrays.arrays(
        np.float32,
        arrays.array_shapes(min_dims=2, max_dims=3),
        elements=st.floats(-500, 500, width=32),
    )
)
def test_log_softmax_gives_log_probabilities(logits: np.ndarray) -> None:
    found = log_softmax(logits)
    assert found.dtype == np.float64
    assert np.exp(found).sum(-1) == pytest.approx(1)
    pairs = np.diff(logits.astype(np.float64), axis=-1)
    np.testing.assert_allclose(np.diff(found, axis=-1), pairs, atol=1e-9)


def test_log_softmax_takes_masked_ids_and_shows_what_is_no_distribution() -> None:
    inf = np.inf
    found = log_softmax(np.array([[0, -inf], [np.nan, 0], [inf, 0], [-inf, -inf]], np.float32))
    np.testing.assert_array_equal(found[0], [0, -inf])
    assert np.isnan(found[1:]).any(-1).all()


def test_greedy_step_settles_ties_in_favour_of_the_lower_id() -> None:
    ids, scores = greedy_step(np.array([[-3.0, -1.0, -1.0], [-2.0, -5.0, -2.0]]))
    assert ids.tolist() == [1, 0]
    assert scores.tolist() == [-1, -2]


@given(data=st.data(), batch=st.integers(1, 3), beam=st.integers(1, 5), width=st.integers(1, 6))
def test_beam_step_takes_the_best_and_settles_ties_by_beam_and_id(
    data: st.DataObject, batch: int, beam: int, width: int
) -> None:
    few = st.sampled_from([-np.inf, -3.0, -2.0, -1.0, 0.0])  # so that ties are many
    scores = data.draw(arrays.arrays(np.float64, (batch, beam), elements=few))
    log_probs = data.draw(arrays.arrays(np.float64, (batch, beam, width), elements=few))
    found = beam_step(scores, log_probs)
    for row in range(batch):
        candidates = [
            (-(scores[row, parent] + log_probs[row, parent, token]), parent, token)
            for parent in range(beam)
            for token in range(width)
        ]
        expected = [(-worse, parent, token) for worse, parent, token in sorted(candidates)[:beam]]
        assert list(zip(*(part[row].tolist() for part in found), strict=True)) == expected


@given(seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=4), steps=st.integers(1, 6))
def test_greedy_search_is_the_plain_one_and_a_beam_of_one(seeds: list[int], steps: int) -> None:
    expected = [
        beam_search(_plain_log_probs(_decoder(seed)), end=END, beam=1, max_length=steps)
        for seed in seeds
    ]
    found, after = _greedily(seeds, steps)
    _agree(found, expected)
    assert after == min(steps, max(len(ids) for ids, _ in expected) + 1)
    assert _by_beams(seeds, 1, steps)[0] == found


@given(
    seeds=st.lists(st.integers(0, 10**6), min_size=1, max_size=3),
    beam=st.integers(2, 7),
    steps=st.integers(1, 5),
)
def test_beam_search_is_the_plain_one_for_every_source(
    seeds: list[int], beam: int, steps: int
) -> None:
    expected = [
        beam_search(_plain_log_probs(_decoder(seed)), end=END, beam=beam, max_length=steps)
        for seed in seeds
    ]
    _agree(_by_beams(seeds, beam, steps)[0], expected)


@given(seed=st.integers(0, 10**6), steps=st.integers(1, 4))
def test_a_wide_enough_beam_finds_the_optimum(seed: int, steps: int) -> None:
    log_probs = _plain_log_probs(_decoder(seed))
    expected = exhaustive_search(log_probs, vocabulary=VOCABULARY, end=END, max_length=steps)
    _agree(_by_beams([seed], VOCABULARY**steps, steps)[0], [expected])


def test_beam_search_is_done_when_no_live_beam_can_win() -> None:
    search = BeamSearch(batch=2, beam=2, end=END)
    sure, unsure = np.log([0.1, 0.8, 0.05, 0.05]), np.log([0.4, 0.3, 0.2, 0.1])
    search.advance(np.stack([sure, sure, unsure, unsure]))
    assert not search.done  # the second source: 0.4 is live, above the 0.3 that ended
    search.advance(np.stack([sure, sure, sure, sure]))
    assert search.done  # 0.4 * 0.8 has ended now, and nothing live is above it
    ids, scores = search.hypotheses()
    assert [row.tolist() for row in ids] == [[], [0]]
    assert np.exp(scores) == pytest.approx([0.8, 0.32])

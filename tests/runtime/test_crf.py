"""The Viterbi algorithm, held against all sequences of tags."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from decoders import hold_to_chunks, whole
from rnnx import InputError, ViterbiStream, viterbi
from rnnx_runtime import crf

Chain = dict[str, Any]


def _random(seed: int, frames: int, tags: int) -> tuple[np.ndarray, Chain]:
    rng = np.random.default_rng(seed)
    transitions, ends = rng.normal(0, 1, (tags, tags)), rng.normal(0, 1, (2, tags))
    chain = {"transitions": transitions, "start_transitions": ends[0], "end_transitions": ends[1]}
    return rng.normal(0, 1, (frames, tags)), chain


def _score(tags: tuple[int, ...], emissions: np.ndarray, chain: Chain) -> float:
    terms = [emissions[frame, tag] for frame, tag in enumerate(tags)]
    terms += [chain["transitions"][pair] for pair in itertools.pairwise(tags)]
    terms += [chain["start_transitions"][tags[0]], chain["end_transitions"][tags[-1]]]
    return math.fsum(terms)


def _best(emissions: np.ndarray, chain: Chain) -> tuple[list[int], float]:
    frames, tags = emissions.shape
    paths = itertools.product(range(tags), repeat=frames)
    scores = {path: _score(path, emissions, chain) for path in paths}
    best = max(scores, key=lambda path: scores[path])
    return list(best), scores[best]


def _hold_to_all_sequences(emissions: np.ndarray, chain: Chain, lengths: list[int]) -> None:
    found = viterbi(emissions, **chain, lengths=lengths)
    for row, length in enumerate(lengths):
        tags, score = _best(emissions[row, :length], chain)
        assert found.tags[row].tolist() == tags
        assert found.scores[row] == pytest.approx(score)


@given(
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    tags=st.integers(1, 4),
)
def test_whole_sequences_get_the_best_of_all_tags(seed: int, lengths: list[int], tags: int) -> None:
    emissions, chain = _random(seed, len(lengths) * max(lengths), tags)
    emissions = emissions.reshape(len(lengths), max(lengths), tags)
    _hold_to_all_sequences(emissions, chain, lengths)
    for row, length in enumerate(lengths):
        stream = ViterbiStream(**chain)
        assert whole(stream, emissions[row, :length]) == _best(emissions[row, :length], chain)[0]
        assert stream.score == viterbi(emissions, **chain, lengths=lengths).scores[row]


@given(data=st.data(), frames=st.integers(0, 20), tags=st.integers(1, 4))
def test_chunks_give_the_whole(data: st.DataObject, frames: int, tags: int) -> None:
    few = st.sampled_from([-1.0, 0.0, 0.0, 2.0, -np.inf])  # so that ties are many
    transitions = data.draw(arrays.arrays(np.float64, (tags, tags), elements=few))
    np.fill_diagonal(transitions, 0)  # one sequence at least is possible
    emissions = data.draw(arrays.arrays(np.float64, (frames, tags), elements=few))
    emissions[:, 0] = 0
    cuts = data.draw(st.lists(st.integers(0, frames), max_size=6))
    hold_to_chunks(lambda: ViterbiStream(transitions), emissions, cuts)
    if frames:
        expected = viterbi(emissions[None], transitions).tags[0].tolist()
        assert whole(ViterbiStream(transitions), emissions) == expected


def test_scores_that_are_left_out_are_zero() -> None:
    emissions, chain = _random(0, 4, 3)
    zeros = {"start_transitions": np.zeros(3), "end_transitions": np.zeros(3)}
    found = viterbi(emissions[None], chain["transitions"])
    assert found.tags[0].tolist() == _best(emissions, chain | zeros)[0]


def test_a_tag_is_given_once_no_frame_can_change_it() -> None:
    stream = ViterbiStream([[1, 0], [0, 1]])
    assert stream.feed([[0, 0]]).tolist() == []
    assert stream.feed([[0, 0]]).tolist() == []  # 0 0 and 1 1 are as good
    assert stream.feed([[5, 0]]).tolist() == []  # the best way to a 1 here is still 1 1 1
    assert stream.feed([[0, 0]]).tolist() == [0, 0, 0]  # and here even a 1 has 0 0 0 before it
    assert stream.flush().tolist() == [0]


@given(seed=st.integers(0, 10**6), frames=st.integers(1, 8))
def test_what_is_given_is_what_any_ending_keeps(seed: int, frames: int) -> None:
    emissions, chain = _random(seed, frames + 3, 3)
    stream = ViterbiStream(**chain)
    given = stream.feed(emissions[:frames]).tolist()
    for last in range(3):
        sure = np.where(np.arange(3) == last, 100.0, 0.0)
        ending = np.concatenate([emissions[:frames], sure[None]])
        assert viterbi(ending[None], **chain).tags[0].tolist()[: len(given)] == given


def test_a_long_stream_is_not_held() -> None:
    emissions, chain = _random(1, 20_000, 5)
    stream = ViterbiStream(**chain)
    waiting, given = [], 0
    for chunk in np.split(emissions, 200):
        given += len(stream.feed(chunk))
        waiting.append(stream.position - given)
    assert max(waiting) < 40
    assert len(stream._pointers) == waiting[-1]


class _Faulty(ViterbiStream):
    """Gives what the best tag of the last frame came from, though another may win yet."""

    def _decide(self, survivors):  # type: ignore[no-untyped-def]
        return super()._decide(survivors[:1])


def test_tags_given_too_early_are_caught() -> None:
    emissions, chain = _random(0, 12, 4)
    with pytest.raises(AssertionError):
        hold_to_chunks(lambda: _Faulty(**chain), emissions, range(12))


@pytest.mark.parametrize("fault", ["transposed", "no start", "no end"])
def test_a_chain_that_is_wrong_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = crf._hold_chain

    def wrong(transitions: Any, start: Any, end: Any) -> Any:
        transitions = np.transpose(transitions) if fault == "transposed" else transitions
        start, end = (
            None if fault == f"no {name}" else value
            for name, value in (("start", start), ("end", end))
        )
        return right(transitions, start, end)

    emissions, chain = _random(2, 15, 3)
    emissions = emissions.reshape(3, 5, 3) / 4  # so that the chain weighs
    _hold_to_all_sequences(emissions, chain, [5, 4, 3])
    monkeypatch.setattr(crf, "_hold_chain", wrong)
    with pytest.raises(AssertionError):
        _hold_to_all_sequences(emissions, chain, [5, 4, 3])


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"transitions": np.zeros((2, 3))}, r"transitions has shape \[2, 3\], but \[3, 3\]"),
        ({"transitions": [[np.nan]]}, r"transitions holds nan at index \[0, 0\]"),
        ({"start_transitions": [0.0]}, r"start_transitions has shape \[1\], but \[2\]"),
        ({"end_transitions": "no"}, "end_transitions is <U2"),
        ({"emissions": np.zeros((1, 4, 3))}, r"but \[batch, time, 2\] is taken"),
        ({"emissions": np.zeros((4, 2))}, r"but \[batch, time, 2\] is taken"),
        ({"emissions": np.zeros((1, 0, 2))}, "emissions hold no frame"),
        ({"emissions": np.full((1, 1, 2), np.inf)}, r"emissions holds inf at index \[0, 0, 0\]"),
        ({"lengths": [0]}, r"lengths\[0\] is 0, but emissions has 4 frames"),
        ({"lengths": [5]}, r"lengths\[0\] is 5"),
        ({"lengths": [1, 1]}, r"but int64\[1\] is taken"),
        ({"lengths": [1.0]}, r"lengths is float64\[1\]"),
        ({"emissions": np.full((1, 4, 2), -np.inf)}, "no sequence of tags is possible"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(arguments: Chain, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        viterbi(**{"emissions": np.zeros((1, 4, 2)), "transitions": np.zeros((2, 2))} | arguments)


def test_a_stream_without_possible_tags_is_as_it_was() -> None:
    stream = ViterbiStream([[0, -np.inf], [-np.inf, 0]], end_transitions=[-np.inf, 0])
    stream.feed([[0, -np.inf]])
    with pytest.raises(InputError, match="no sequence of tags is possible"):
        stream.feed([[-np.inf, 0]])
    assert stream.position == 1
    with pytest.raises(InputError, match="no sequence of tags is possible"):
        stream.flush()
    assert stream.feed([[0, 0]]).tolist() == [0]


def test_a_batch_of_nothing_gives_nothing() -> None:
    found = viterbi(np.zeros((0, 3, 2)), np.zeros((2, 2)))
    assert found.tags == []
    assert found.scores.shape == (0,)

"""Hysteresis, held against a plain scan of the whole sequence."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from decoders import hold_to_chunks, whole
from rnnx import Event, Hysteresis, InputError, Span
from rnnx_runtime.arguments import Scores

Options = dict[str, Any]


def _scan(scores: list[float], options: Options) -> list[tuple[int, int, float]]:
    """Start, end and largest score of what is on, found with the whole sequence in hand."""
    states, on = [], False
    for score in scores:
        on = score >= (options["offset"] if on else options["onset"])
        states.append(on)
    runs = _filled(_runs(states), options["min_duration_off"])
    padding, spans = options["padding"], []
    for start, end in runs:
        if end - start >= options["min_duration_on"]:
            free = spans[-1][1] if spans else 0
            padded = max(start - padding, free), min(end + padding, len(scores))
            spans.append((*padded, max(scores[slice(*padded)])))
    return spans


def _runs(states: list[bool]) -> list[tuple[int, int]]:
    edges = [0, *(i for i in range(1, len(states)) if states[i] != states[i - 1]), len(states)]
    return [(a, b) for a, b in itertools.pairwise(edges) if a < b and states[a]]


def _filled(runs: list[tuple[int, int]], shortest_gap: int) -> list[tuple[int, int]]:
    filled: list[tuple[int, int]] = []
    for start, end in runs:
        if filled and start - filled[-1][1] < shortest_gap:
            start, _ = filled.pop()
        filled.append((start, end))
    return filled


@st.composite
def _options(draw: st.DrawFn) -> Options:
    offset, onset = sorted(draw(st.tuples(*[st.sampled_from([0.2, 0.4, 0.5, 0.8])] * 2)))
    shortest_gap = draw(st.integers(1, 5))
    return {
        "onset": onset,
        "offset": offset,
        "min_duration_on": draw(st.integers(1, 5)),
        "min_duration_off": shortest_gap,
        "padding": draw(st.integers(0, shortest_gap)),
    }


def _scores(most: int = 3) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(0, 40), st.integers(1, most))
    few = st.sampled_from([0.0, 0.2, 0.3, 0.45, 0.5, 0.7, 0.9])
    return shapes.flatmap(lambda shape: arrays.arrays(np.float64, shape, elements=few))


def _hold_to_the_scan(detector: Hysteresis, scores: np.ndarray, options: Options) -> None:
    events = whole(detector, scores)
    for column in range(scores.shape[1]):
        spans = [e.span[1:] for e in events if e.ended and e.span.id == column]
        assert spans == _scan(scores[:, column].tolist(), options)


@given(scores=_scores(), options=_options())
def test_spans_are_those_of_a_plain_scan(scores: np.ndarray, options: Options) -> None:
    _hold_to_the_scan(Hysteresis(**options), scores, options)


@given(scores=_scores(), options=_options(), data=st.data())
def test_chunks_give_the_whole(scores: np.ndarray, options: Options, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(scores)), max_size=6))
    hold_to_chunks(lambda: Hysteresis(**options), scores, cuts)


@given(scores=_scores(most=1), options=_options())
def test_an_event_comes_with_the_frame_that_decides_it(
    scores: np.ndarray, options: Options
) -> None:
    detector = Hysteresis(**options)
    began: list[Span] = []
    for frame in scores:
        for event in detector.feed(frame[None]):
            assert event.frame == detector.position
            began = _followed(began, event)
    for event in detector.flush():
        began = _followed(began, event)
    assert not began


def _followed(began: list[Span], event: Event) -> list[Span]:
    """The spans that are open after the event: it opens one, or ends the one that is."""
    assert event.span.end <= event.frame
    if not event.ended:
        assert not began
        return [event.span]
    assert [event.span.start] == [span.start for span in began]
    return []


def test_voice_is_found_with_little_delay() -> None:
    voice = Hysteresis(0.6, 0.3, min_duration_on=2, min_duration_off=3, padding=1)
    probs = np.array([0, 0, 0.7, 0.4, 0.2, 0.8, 0.1, 0.1, 0.1, 0.9])
    assert whole(voice, probs[:, None]) == [
        Event(4, Span(0, 1, 4, 0.7), ended=False),
        Event(9, Span(0, 1, 7, 0.8), ended=True),
    ]


def test_padding_ends_where_the_span_before_does() -> None:
    probs = np.array([0, 1, 0, 0, 1, 0, 0.0])[:, None]
    events = whole(Hysteresis(min_duration_off=2, padding=2), probs)
    assert [event.span[1:3] for event in events if event.ended] == [(0, 4), (4, 7)]


class _ForgetsTheGap(Hysteresis):
    """A gap across the border of two chunks ends at the border."""

    def _advance(self, frames: Scores) -> list[Event]:
        for track in self._tracks:
            track.end = self.position
        return super()._advance(frames)


class _OneThreshold(Hysteresis):
    """A class goes off below `onset`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._offset = self._onset


class _DropsFirst(Hysteresis):
    """What is too short is dropped before gaps are filled."""

    def _follow(self, track: Any, score: float, known: int) -> list[Event]:
        events = super()._follow(track, score, known)
        track.is_empty |= not (track.is_on or track.is_open)
        return events


def test_a_gap_that_forgets_its_length_is_caught() -> None:
    scores = np.array([[1.0], [0], [0], [1]])
    hold_to_chunks(lambda: Hysteresis(min_duration_off=2), scores, [2])
    with pytest.raises(AssertionError):
        hold_to_chunks(lambda: _ForgetsTheGap(min_duration_off=2), scores, [2])


@pytest.mark.parametrize("faulty", [_OneThreshold, _DropsFirst])
def test_a_wrong_rule_is_caught(faulty: type[Hysteresis]) -> None:
    options = {
        "onset": 0.6,
        "offset": 0.3,
        "min_duration_on": 3,
        "min_duration_off": 2,
        "padding": 0,
    }
    scores = np.array([0.7, 0.2, 0.7, 0.4, 0, 0, 0, 0.9, 0.4, 0.4, 0.4, 0])[:, None]
    _hold_to_the_scan(Hysteresis(**options), scores, options)
    with pytest.raises(AssertionError):
        _hold_to_the_scan(faulty(**options), scores, options)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"onset": "loud"}, "onset is 'loud'"),
        ({"onset": float("nan")}, "onset is nan"),
        ({"onset": 0.4, "offset": 0.5}, "offset is 0.5; it must be a number .* at most 0.4"),
        ({"min_duration_on": 0}, "min_duration_on is 0"),
        ({"min_duration_off": 1.5}, "min_duration_off is 1.5"),
        ({"padding": -1}, "padding is -1"),
        ({"padding": 3, "min_duration_off": 2}, "padding is 3, more than min_duration_off, 2"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: Options, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        Hysteresis(**options)

"""CTC, held against all paths enumerated, and against torch's loss."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decoders import hold_to_chunks, in_chunks, log_probs, whole
from rnnx import CTCBeamSearch, CTCGreedySearch, InputError, Span, log_softmax
from rnnx_runtime import ctc_beam
from rnnx_runtime.arguments import Scores

Labels = tuple[int, ...]
EVERYTHING = 10**6  # a beam that drops no prefix


def _random(seed: int, frames: int, classes: int, sharpness: float = 2.0) -> np.ndarray:
    return log_softmax(np.random.default_rng(seed).normal(0, sharpness, (frames, classes)))


def _collapsed(path: Labels, blank: int) -> list[Span]:
    """The runs of labels of a path; without scores, which a path does not have."""
    spans, start = [], 0
    for label, run in itertools.groupby(path):
        end = start + len(list(run))
        spans += [Span(label, start, end, 0.0)] if label != blank else []
        start = end
    return spans


def _enumerated(scores: np.ndarray, blank: int) -> dict[Labels, tuple[float, float, list[Labels]]]:
    """For the labels of each path: their log probability, that of the best path, all such paths."""
    sums: dict[Labels, list[tuple[float, Labels]]] = {}
    frames, classes = scores.shape
    for path in itertools.product(range(classes), repeat=frames):
        score = math.fsum(scores[frame, label] for frame, label in enumerate(path))
        labels = tuple(span.id for span in _collapsed(path, blank))
        if score > -math.inf:
            sums.setdefault(labels, []).append((score, path))
    return {
        labels: (
            math.log(math.fsum(math.exp(score) for score, _ in paths)),
            (best := max(score for score, _ in paths)),
            [path for score, path in paths if score >= best - 1e-9],
        )
        for labels, paths in sums.items()
    }


def _scored(spans: list[Span], scores: np.ndarray) -> list[Span]:
    return [s._replace(score=scores[s.start : s.end, s.id].max().item()) for s in spans]


def _is_prefix_search(search: CTCBeamSearch, scores: np.ndarray, blank: int) -> None:
    """Assert that a search of everything has every prefix, its exact probability, a best path."""
    settled = search.feed(scores)
    expected = _enumerated(scores, blank)
    hypotheses = search.hypotheses()
    found = {tuple(span.id for span in [*settled, *h.spans]): h for h in hypotheses}
    assert set(found) == set(expected)
    for labels, (score, _, paths) in expected.items():
        assert found[labels].score == pytest.approx(score, abs=1e-9)
        spans = [_scored(_collapsed(path, blank), scores) for path in paths]
        assert [*settled, *found[labels].spans] in spans
    best = hypotheses[0].score
    assert best == max(h.score for h in hypotheses)
    assert best == pytest.approx(max(score for score, _, _ in expected.values()), abs=1e-9)


@given(scores=log_probs(max_frames=5, max_classes=3), data=st.data())
def test_a_beam_of_everything_is_exact(scores: np.ndarray, data: st.DataObject) -> None:
    blank = data.draw(st.integers(0, scores.shape[1] - 1))
    _is_prefix_search(CTCBeamSearch(beam_size=EVERYTHING, blank=blank), scores, blank)


def _textbook(scores: np.ndarray, blank: int, beam_size: int) -> dict[Labels, float]:
    """Hannun's prefix beam search in probabilities: every class for every prefix, then the best."""
    beam: dict[Labels, tuple[float, float]] = {(): (1.0, 0.0)}
    for frame in np.exp(scores).tolist():
        found: dict[Labels, list[float]] = {}
        for prefix, (by_blank, by_label) in beam.items():
            both = by_blank + by_label
            found.setdefault(prefix, [0.0, 0.0])[0] += both * frame[blank]
            if prefix:
                found[prefix][1] += by_label * frame[prefix[-1]]
            for label, prob in enumerate(frame):
                if label != blank:
                    before = by_blank if prefix[-1:] == (label,) else both
                    found.setdefault((*prefix, label), [0.0, 0.0])[1] += before * prob
        possible = [prefix for prefix in found if sum(found[prefix]) > 0]
        best = sorted(possible, key=lambda prefix: -sum(found[prefix]))[:beam_size]
        beam = {prefix: (found[prefix][0], found[prefix][1]) for prefix in best}
    return {prefix: math.log(sum(both)) for prefix, both in beam.items()}


@given(
    seed=st.integers(0, 10**6),
    frames=st.integers(1, 25),
    classes=st.integers(2, 14),
    beam_size=st.integers(1, 6),
)
def test_a_beam_follows_what_the_textbook_follows(
    seed: int, frames: int, classes: int, beam_size: int
) -> None:
    scores = _random(seed, frames, classes)
    search = CTCBeamSearch(beam_size=beam_size, blank=classes - 1)
    settled = [span.id for span in search.feed(scores)]
    found = {
        (*settled, *(span.id for span in h.spans)): pytest.approx(h.score)
        for h in search.hypotheses()
    }
    expected = _textbook(scores, classes - 1, beam_size)
    assert list(expected) == list(found)
    assert expected == found


def test_the_second_best_label_enters_a_beam_of_one_where_the_best_is_a_repeat() -> None:
    scores = np.log([[0.1, 0.8, 0.1], [0.4, 0.5, 0.1], [0.05, 0.5, 0.45]])
    assert list(_textbook(scores, 0, 1)) == [(1, 2)]
    assert [span.id for span in whole(CTCBeamSearch(beam_size=1), scores)] == [1, 2]


@given(seed=st.integers(0, 10**6), frames=st.integers(1, 7))
def test_the_score_is_that_of_torchs_loss(seed: int, frames: int) -> None:
    scores = _random(seed, frames, 3)
    search = CTCBeamSearch(beam_size=EVERYTHING)
    search.feed(scores)
    for best in search.hypotheses()[:3]:
        assert best.score == pytest.approx(_torchs(scores, best.spans), abs=1e-9)


@given(seed=st.integers(0, 10**6), beam_size=st.integers(1, 6))
def test_behind_a_beam_paths_may_be_lost_and_never_gained(seed: int, beam_size: int) -> None:
    scores = _random(seed, 20, 5)
    search = CTCBeamSearch(beam_size=beam_size)
    settled = search.feed(scores)
    for found in search.hypotheses():
        assert found.score <= _torchs(scores, [*settled, *found.spans]) + 1e-9


def _torchs(scores: np.ndarray, spans: list[Span]) -> float:
    labels = torch.tensor([span.id for span in spans], dtype=torch.long)
    lengths = torch.tensor(len(scores)), torch.tensor(len(labels))
    loss = torch.nn.functional.ctc_loss(torch.from_numpy(scores), labels, *lengths, reduction="sum")
    return -loss.item()


def test_the_most_probable_labels_need_not_be_those_of_the_best_path() -> None:
    scores = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert whole(CTCGreedySearch(), scores) == []  # 0.36, the labels (1,) have 0.64
    (span,) = whole(CTCBeamSearch(), scores)
    assert span == Span(1, 0, 1, np.log(0.4))


@given(scores=log_probs(max_frames=12, max_classes=4), data=st.data())
def test_greedy_takes_the_best_path(scores: np.ndarray, data: st.DataObject) -> None:
    blank = data.draw(st.integers(0, scores.shape[1] - 1))
    path = tuple(max(range(len(row)), key=lambda i: row[i]) for row in scores.tolist())
    found = whole(CTCGreedySearch(blank=blank), scores)
    assert found == _scored(_collapsed(path, blank), scores)


def test_greedy_gives_a_label_as_soon_as_it_has_ended() -> None:
    with np.errstate(divide="ignore"):
        scores = np.log(np.eye(3)[[1, 1, 0, 1, 2]])
    search = CTCGreedySearch()
    given = [search.feed(frame[None]) for frame in scores]
    assert given == [[], [], [Span(1, 0, 2, 0)], [], [Span(1, 3, 4, 0)]]
    assert search.flush() == [Span(2, 4, 5, 0)]


@pytest.mark.parametrize(
    "open_search",
    [
        CTCGreedySearch,
        lambda: CTCGreedySearch(blank=1),
        CTCBeamSearch,
        lambda: CTCBeamSearch(beam_size=2, blank=1),
        lambda: CTCBeamSearch(beam_size=3, min_log_prob=-1.5),
        lambda: CTCBeamSearch(beam_size=4, max_delay=2),
    ],
)
@given(scores=log_probs(max_frames=20, max_classes=4), data=st.data())
def test_chunks_give_the_whole(open_search, scores, data) -> None:  # type: ignore[no-untyped-def]
    cuts = data.draw(st.lists(st.integers(0, len(scores)), max_size=6))
    hold_to_chunks(open_search, scores, cuts)


@given(
    scores=log_probs(max_frames=25, max_classes=4),
    beam_size=st.integers(1, 8),
    least=st.none() | st.floats(-3, 0),
    delay=st.none() | st.integers(1, 9),
)
def test_what_is_settled_is_part_of_all_that_follows(
    scores: np.ndarray, beam_size: int, least: float | None, delay: int | None
) -> None:
    search = CTCBeamSearch(beam_size=beam_size, min_log_prob=least, max_delay=delay)
    settled = []
    known = []
    for frame in scores:
        settled += search.feed(frame[None])
        known.append([[*settled, *h.spans] for h in search.hypotheses()])
        assert len(known[-1]) <= beam_size
    final = settled + search.flush()
    search.reset()
    count = 0
    for frame in scores:
        count += len(search.feed(frame[None]))
        for hypotheses in known[search.position - 1 :]:
            assert all(spans[:count] == final[:count] for spans in hypotheses)


def test_labels_that_are_sure_are_settled_and_no_longer_held() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (3000, 8))
    logits[np.arange(3000), np.where(np.arange(3000) % 3, 0, rng.integers(1, 8, 3000))] += 15
    search = CTCBeamSearch(min_log_prob=-8)
    held = []
    settled: list[Span] = []
    for chunk in np.split(log_softmax(logits), 300):
        settled += search.feed(chunk)
        held.append(max(len(h.spans) for h in search.hypotheses()))
    assert max(held) < 30
    assert settled + search.flush() == whole(CTCGreedySearch(), log_softmax(logits))


def _made_unsure(frames: int) -> np.ndarray:
    """Every third frame a label of two that are nearly as probable."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (frames, 8))
    spikes = np.arange(frames) % 3 == 0
    logits[~spikes, 0] += 12
    logits[np.flatnonzero(spikes), rng.integers(1, 5, spikes.sum())] += 12
    logits[np.flatnonzero(spikes), rng.integers(5, 8, spikes.sum())] += 11.5
    return log_softmax(logits)


def test_labels_that_stay_unsure_are_settled_after_max_delay() -> None:
    scores = _made_unsure(1500)
    search, patient = CTCBeamSearch(max_delay=10), CTCBeamSearch()
    settled = []
    for frame in scores:
        settled += search.feed(frame[None])
        hypotheses = search.hypotheses()
        held = [span for h in hypotheses for span in h.spans]
        assert all(span.end > search.position - 10 for span in held)
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)
    assert len(settled + search.flush()) == 500
    patient.feed(scores)
    assert len(patient.hypotheses()[0].spans) > 100


@given(scores=log_probs(max_frames=25, max_classes=4), beam_size=st.integers(1, 8))
def test_a_delay_that_is_never_reached_changes_nothing(scores: np.ndarray, beam_size: int) -> None:
    waiting = CTCBeamSearch(beam_size=beam_size, max_delay=max(len(scores), 1))
    assert whole(waiting, scores) == whole(CTCBeamSearch(beam_size=beam_size), scores)
    free = CTCBeamSearch(beam_size=beam_size)
    free.feed(scores)
    assert waiting.hypotheses()[0].score == pytest.approx(free.hypotheses()[0].score)


def test_pruned_classes_are_impossible_but_for_the_best() -> None:
    scores = np.log([[0.3, 0.2, 0.1, 0.4], [0.25, 0.25, 0.3, 0.2]])
    search = CTCBeamSearch(beam_size=EVERYTHING, min_log_prob=np.log(0.35))
    search.feed(scores)
    (only,) = search.hypotheses()
    assert only.score == pytest.approx(np.log(0.4 * 0.3))
    pruned = CTCBeamSearch(beam_size=EVERYTHING, min_log_prob=-1.5)
    plain = CTCBeamSearch(beam_size=EVERYTHING)
    assert pruned.feed(scores) == plain.feed(np.where(scores >= -1.5, scores, -np.inf))
    assert pruned.hypotheses() == plain.hypotheses()


class _ForgetsTheBorder(CTCGreedySearch):
    """A repeat across the border of two chunks becomes a second label."""

    def _advance(self, frames: Scores) -> list[Span]:
        ended = self._end()
        self._begin()
        return ended + super()._advance(frames)


class _RepeatsBegin(ctc_beam._Prefix):
    """The same label right behind itself begins anew, without a blank between."""

    def grow(self, label: int, log_prob: float, frame: int) -> ctc_beam._Ending:
        before = self.paths
        return before.go_on(log_prob, (*before.spans, Span(label, frame, frame + 1, log_prob)))


class _LosesPaths(CTCBeamSearch):
    """A prefix that stays and one that grows to the same labels do not share their paths."""

    def _children(self):  # type: ignore[no-untyped-def]
        return iter(())


class _SettlesEarly(CTCBeamSearch):
    """All but the best prefix is dropped behind each chunk."""

    def _settle(self) -> list[Span]:
        del self._prefixes[1:]
        return super()._settle()


def test_a_forgotten_border_is_caught() -> None:
    scores = np.log([[0.1, 0.9], [0.1, 0.9]])
    hold_to_chunks(CTCGreedySearch, scores, [2])
    with pytest.raises(AssertionError):
        hold_to_chunks(_ForgetsTheBorder, scores, [1])


def test_labels_settled_too_early_are_caught() -> None:
    scores = _random(3, 30, 4)
    hold_to_chunks(CTCBeamSearch, scores, range(30))
    with pytest.raises(AssertionError):
        hold_to_chunks(_SettlesEarly, scores, range(30))


@pytest.mark.parametrize("fault", ["blank", "repeat", "paths"])
def test_a_search_that_is_wrong_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = _random(0, 4, 3)
    search = CTCBeamSearch(beam_size=EVERYTHING, blank=1 if fault == "blank" else 0)
    if fault == "repeat":
        monkeypatch.setattr(ctc_beam, "_Prefix", _RepeatsBegin)
        search.reset()
    if fault == "paths":
        search = _LosesPaths(beam_size=EVERYTHING)
    with pytest.raises(AssertionError):
        _is_prefix_search(search, scores, 0)


@pytest.mark.parametrize("search", [CTCGreedySearch(), CTCBeamSearch()])
@pytest.mark.parametrize(
    ("scores", "fault"),
    [
        ([[3.0, -1.0]], "no log probabilities: the largest is 3.0"),
        ([[-1.0, -1.0], [-np.inf, -np.inf]], r"index \[1\] are no log probabilities"),
    ],
)
def test_what_is_no_log_probability_is_refused(
    search: CTCGreedySearch | CTCBeamSearch, scores: list[list[float]], fault: str
) -> None:
    with pytest.raises(InputError, match=fault) as caught:
        search.feed(scores)
    assert "log_softmax" in str(caught.value.hint)
    assert search.position == 0


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"beam_size": 0}, "beam_size is 0"),
        ({"beam_size": 2.0}, "beam_size is 2.0"),
        ({"blank": -1}, "blank is -1"),
        ({"max_delay": 0}, "max_delay is 0"),
        ({"min_log_prob": 0.5}, "min_log_prob is 0.5"),
        ({"min_log_prob": float("nan")}, "min_log_prob is nan"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, float], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        CTCBeamSearch(**options)  # type: ignore[arg-type]


def test_a_blank_that_is_no_class_is_refused() -> None:
    for search in (CTCGreedySearch(blank=2), CTCBeamSearch(blank=2)):
        with pytest.raises(InputError, match="blank is 2, but the scores have 2 classes"):
            search.feed(np.log([[0.5, 0.5]]))


def test_a_chunk_may_be_cut_within_a_repeat() -> None:
    scores = np.log([[0.1, 0.9]] * 4)
    assert in_chunks(CTCGreedySearch(), scores, [1, 2, 3]) == [Span(1, 0, 4, np.log(0.9))]

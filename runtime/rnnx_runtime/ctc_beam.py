"""CTC prefix beam search: the labels whose paths are the most probable together.

After Graves (2006) and Hannun (2014). Of each prefix of labels the paths that end in blank are kept
apart from those that do not: only behind a blank may the last label come again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from math import exp, inf, log1p
from typing import NamedTuple

import numpy as np

from rnnx_runtime.arguments import Scores, hold_count, hold_number
from rnnx_runtime.ctc import hold_log_probs
from rnnx_runtime.decoding import Ids, top
from rnnx_runtime.frame_decoder import FrameDecoder
from rnnx_runtime.spans import Span


class Hypothesis(NamedTuple):
    """Labels that a beam search holds possible.

    Attributes:
        spans: the labels that are not settled yet, where the best path has them.
        score: the log probability of all paths that give the labels, from the first frame on.
    """

    spans: list[Span]
    score: float


class _Ending(NamedTuple):
    """The paths of a prefix that end in blank, or those that do not."""

    score: float  # the log probability of all these paths
    best: float  # that of the best one
    spans: tuple[Span, ...]  # where the best one has the labels

    def join(self, other: _Ending) -> _Ending:
        """These paths and others of the same labels."""
        best = self if self.best >= other.best else other
        return _Ending(_log_add(self.score, other.score), best.best, best.spans)

    def go_on(self, log_prob: float, spans: tuple[Span, ...]) -> _Ending:
        """These paths with one more frame."""
        return _Ending(self.score + log_prob, self.best + log_prob, spans)


_NOTHING = _Ending(-inf, -inf, ())


@dataclass(slots=True)
class _Prefix:
    """Labels from the first that is not settled on, and their paths."""

    labels: tuple[int, ...]
    blank: _Ending
    non_blank: _Ending
    paths: _Ending = field(init=False)  # all of them

    def __post_init__(self) -> None:
        self.paths = self.blank.join(self.non_blank)

    @property
    def last(self) -> int:
        """The last label; -1 without one, or where it is settled, so that no path ends in it."""
        return self.labels[-1] if self.labels else -1

    def stay(self, log_probs: Scores, blank: int) -> _Prefix:
        """The same labels with one more frame: a blank or the last label again."""
        by_blank = self.paths.go_on(log_probs.item(blank), self.paths.spans)
        return _Prefix(self.labels, by_blank, self._repeat(log_probs))

    def _repeat(self, log_probs: Scores) -> _Ending:
        if self.non_blank.score == -inf:
            return _NOTHING
        spans, log_prob = self.non_blank.spans, log_probs.item(self.last)
        return self.non_blank.go_on(log_prob, (*spans[:-1], spans[-1].longer(log_prob)))

    def grow(self, label: int, log_prob: float, frame: int) -> _Ending:
        """These paths with one more label, which begins in `frame`."""
        # Without a blank between them, the same label again is a repeat of the last.
        before = self.blank if label == self.last else self.paths
        return before.go_on(log_prob, (*before.spans, Span(label, frame, frame + 1, log_prob)))

    def join(self, grown: _Ending) -> _Prefix:
        """These paths, and others that have grown to the same labels."""
        return _Prefix(self.labels, self.blank, self.non_blank.join(grown))

    def child(self, label: int, log_prob: float, frame: int) -> _Prefix:
        """The prefix of one label more."""
        grown = self.grow(label, log_prob, frame)
        return _Prefix((*self.labels, label), _NOTHING, grown)

    def final(self) -> Iterator[tuple[Span, ...]]:
        """For each ending its spans that no frame to come can change."""
        if self.blank.score > -inf:
            yield self.blank.spans
        if self.non_blank.score > -inf:
            yield self.non_blank.spans[:-1]  # the last one may become longer

    def agreeing(self, late: tuple[Span, ...], latest: int) -> _Prefix:
        """Only the paths of an ending whose labels that end by `latest` are those in `late`."""
        blank, non_blank = (
            ending if _ended(ending.spans, latest) == late else _NOTHING
            for ending in (self.blank, self.non_blank)
        )
        return _Prefix(self.labels, blank, non_blank)

    def behind(self, count: int) -> _Prefix:
        """What is behind the first `count` spans."""
        blank, non_blank = (
            ending._replace(spans=ending.spans[count:]) for ending in (self.blank, self.non_blank)
        )
        return _Prefix(self.labels[count:], blank, non_blank)


class CTCBeamSearch(FrameDecoder[list[Span]]):
    """Prefix beam search: `feed` takes log probabilities, and gives labels that are settled.

    A label is settled when all prefixes in the beam have it in the same frames, so that no frame to
    come can change it; `hypotheses` tells what may follow. Equal scores are settled in favour of
    the better prefix of the frame before, then of the lower label.

    Args:
        beam_size: prefixes that are followed.
        blank: the class that stands for no label.
        min_log_prob: a class less probable than this counts as impossible in a frame, but for the
            most probable one; None keeps all.
        max_delay: frames behind its end after which a label is settled as the best prefix has it;
            prefixes that have others are dropped. Streams without end need it: where two
            prefixes stay equally good, None waits for `flush`, and holds all behind them.

    Raises:
        InputError: `beam_size` or `max_delay` is below 1, `blank` is no class, or `min_log_prob` is
            above 0.
    """

    def __init__(
        self,
        *,
        beam_size: int = 10,
        blank: int = 0,
        min_log_prob: float | None = None,
        max_delay: int | None = None,
    ) -> None:
        self._beam_size = hold_count("beam_size", beam_size)
        self._blank = hold_count("blank", blank, least=0)
        self._least = -inf
        if min_log_prob is not None:
            self._least = hold_number("min_log_prob", min_log_prob, most=0)
        self._max_delay = None if max_delay is None else hold_count("max_delay", max_delay)
        super().__init__()

    def hypotheses(self) -> list[Hypothesis]:
        """The labels behind those that are settled, as they stand now: best first."""
        return [Hypothesis(list(p.paths.spans), p.paths.score) for p in self._prefixes]

    def _begin(self) -> None:
        self._prefixes = [_Prefix((), _Ending(0.0, 0.0, ()), _NOTHING)]

    def _advance(self, frames: Scores) -> list[Span]:
        hold_log_probs(frames, self._blank)
        possible = frames >= np.minimum(self._least, frames.max(1, keepdims=True))
        settled = []
        for frame, row in enumerate(np.where(possible, frames, -inf), self.position):
            self._step(row, frame)
            settled += self._settle_late(frame + 1)
        return settled + self._settle()

    def _end(self) -> list[Span]:
        return self.hypotheses()[0].spans

    def _step(self, log_probs: Scores, frame: int) -> None:
        live, labels = self._prefixes, self._next_labels(log_probs)
        grown = self._grown_scores(log_probs, labels)
        stayed = [prefix.stay(log_probs, self._blank) for prefix in live]
        for place, parent, label in self._children():
            paths = live[parent].grow(label, log_probs.item(label), frame)
            stayed[place] = stayed[place].join(paths)
            grown[parent, labels == label] = -inf
        scores = np.concatenate([[prefix.paths.score for prefix in stayed], grown.ravel()])
        best = [place for place in top(scores, self._beam_size).tolist() if scores[place] > -inf]
        self._prefixes = [
            stayed[place]
            if place < len(live)
            else self._child(place - len(live), labels, log_probs, frame)
            for place in best
        ]

    def _child(self, place: int, labels: Ids, log_probs: Scores, frame: int) -> _Prefix:
        """The prefix whose score is at `place` among those of all prefixes with all `labels`."""
        parent, column = divmod(place, len(labels))
        label = labels.item(column)
        return self._prefixes[parent].child(label, log_probs.item(label), frame)

    def _next_labels(self, log_probs: Scores) -> Ids:
        """The most probable labels, in order of the class: no others can enter the beam.

        A prefix takes at most `beam_size` of its children into the beam. Fewer than `beam_size` are
        in it already, and the last label, which as the next is less probable, is one.
        """
        possible = log_probs.copy()
        possible[self._blank] = -inf
        labels = np.sort(top(possible, 2 * self._beam_size))
        return labels[possible[labels] > -inf]

    def _grown_scores(self, log_probs: Scores, labels: Ids) -> Scores:
        """The score of each live prefix with each of the labels as its next, [prefixes, labels]."""
        blank, paths, last = np.array(
            [(prefix.blank.score, prefix.paths.score, prefix.last) for prefix in self._prefixes]
        ).T[:, :, None]
        scores: Scores = np.where(labels == last, blank, paths) + log_probs[labels]
        return scores

    def _children(self) -> Iterator[tuple[int, int, int]]:
        """Each live prefix that is another with one label more: both places, and the label."""
        places = {prefix.labels: place for place, prefix in enumerate(self._prefixes)}
        for place, prefix in enumerate(self._prefixes):
            parent = places.get(prefix.labels[:-1]) if prefix.labels else None
            if parent is not None:
                yield place, parent, prefix.last

    def _settle_late(self, position: int) -> list[Span]:
        """Have all prefixes agree with the best about labels that ended `max_delay` ago."""
        if self._max_delay is None:
            return []
        latest = position - self._max_delay
        late = _ended(self._prefixes[0].paths.spans, latest)
        agreeing = (prefix.agreeing(late, latest) for prefix in self._prefixes)
        possible = [prefix for prefix in agreeing if prefix.paths.score > -inf]
        self._prefixes = sorted(possible, key=lambda prefix: -prefix.paths.score)
        return self._settle() if late else []

    def _settle(self) -> list[Span]:
        final = [spans for prefix in self._prefixes for spans in prefix.final()]
        alike = takewhile(lambda spans: len(set(spans)) == 1, zip(*final, strict=False))
        settled = [spans[0] for spans in alike]
        self._prefixes = [prefix.behind(len(settled)) for prefix in self._prefixes]
        return settled


def _ended(spans: tuple[Span, ...], latest: int) -> tuple[Span, ...]:
    return tuple(span for span in spans if span.end <= latest)


def _log_add(a: float, b: float) -> float:
    high, low = (a, b) if a >= b else (b, a)
    return high if low == -inf else high + log1p(exp(low - high))

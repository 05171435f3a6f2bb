"""Searches for the most probable ids, one step of a decoder after another: numpy alone.

The score of a hypothesis is the sum of the log probabilities of its ids, and of `end` where it was
reached. It is not normalised by length. Equal scores are settled in favour of the lower beam, then
of the lower id.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def log_softmax(logits: npt.NDArray[Any]) -> Scores:
    """Log probabilities over the last axis of `logits` [..., vocabulary].

    A row that holds NaN or +infinity, or nothing but -infinity, becomes NaN.
    """
    with np.errstate(invalid="ignore"):
        shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
        total = np.log(np.exp(shifted).sum(-1, keepdims=True))
    log_probs: Scores = shifted - total
    return log_probs


def greedy_step(log_probs: Scores) -> tuple[Ids, Scores]:
    """The most probable ids.

    Args:
        log_probs: [batch, vocabulary].

    Returns:
        ids and their log probabilities, each [batch].
    """
    ids = log_probs.argmax(-1)
    return ids, log_probs[np.arange(len(ids)), ids]


def beam_step(scores: Scores, log_probs: Scores) -> tuple[Scores, Ids, Ids]:
    """The best continuations of the beams of each source.

    Args:
        scores: of the beams, [batch, beam]; -infinity for a beam that is not live.
        log_probs: of their next ids, [batch, beam, vocabulary].

    Returns:
        scores, parents (the beam that each continues) and ids, each [batch, beam], best first.
    """
    batch, beam, vocabulary = log_probs.shape
    candidates = (scores[:, :, None] + log_probs).reshape(batch, -1)
    best = np.stack([top(row, beam) for row in candidates])
    return np.take_along_axis(candidates, best, -1), best // vocabulary, best % vocabulary


def top(values: Scores, count: int) -> Ids:
    """The places of the `count` largest values, largest first, equal ones in order of place."""
    count = min(count, len(values))
    least = np.partition(values, -count)[-count]
    above = np.flatnonzero(values > least)
    places = np.concatenate([above, np.flatnonzero(values == least)[: count - len(above)]])
    return places[np.argsort(-values[places], kind="stable")]


class GreedySearch:
    """Takes the most probable id at every step, for each source until its `end`.

    Attributes:
        scores: of the ids so far, [batch].
    """

    def __init__(self, batch: int, end: int) -> None:
        self.scores: Scores = np.zeros(batch)
        self._end = end
        self._ended = np.zeros(batch, bool)
        self._ids: list[Ids] = []

    @property
    def done(self) -> bool:
        """Whether every source has ended."""
        return bool(self._ended.all())

    def advance(self, log_probs: Scores) -> Ids:
        """The next ids [batch], from `log_probs` [batch, vocabulary]; `end` for what ended."""
        ids, gained = greedy_step(log_probs)
        self.scores += np.where(self._ended, 0.0, gained)
        ids[self._ended] = self._end
        self._ended |= ids == self._end
        self._ids.append(ids)
        return ids

    def hypotheses(self) -> tuple[list[Ids], Scores]:
        """The ids of each source, without `end`, and their scores [batch]."""
        rows = np.stack(self._ids, axis=1)
        return [row[row != self._end] for row in rows], self.scores


class BeamSearch:
    """Follows the `beam` best hypotheses of each source; those that end are set aside.

    Scores only fall, so a live beam that is not above the best hypothesis set aside can no longer
    win and is dropped; the search is done when none is left.
    """

    def __init__(self, batch: int, beam: int, end: int) -> None:
        self._end = end
        self._live: Scores = np.full((batch, beam), -np.inf)
        self._live[:, 0] = 0.0  # all beams of a source begin alike, so one stands for them
        self._ids: Ids = np.zeros((batch, beam, 0), np.int64)
        self._best_ids: list[Ids] = [np.zeros(0, np.int64)] * batch
        self._best: Scores = np.full(batch, -np.inf)

    @property
    def done(self) -> bool:
        """Whether no live beam can win."""
        return not np.isfinite(self._live).any()

    def advance(self, log_probs: Scores) -> tuple[Ids, Ids]:
        """Take the best continuations.

        Args:
            log_probs: [batch * beam, vocabulary], the beams of a source side by side.

        Returns:
            the next ids and, for each, the row of the decoder's state that it continues; each
            [batch * beam].
        """
        batch, beam = self._live.shape
        scores, parents, ids = beam_step(self._live, log_probs.reshape(batch, beam, -1))
        before = np.take_along_axis(self._ids, parents[:, :, None], 1)
        self._set_aside(scores, before, ids == self._end)
        self._live = np.where((ids == self._end) | (scores <= self._best[:, None]), -np.inf, scores)
        self._ids = np.concatenate([before, ids[:, :, None]], axis=2)
        return ids.ravel(), (parents + beam * np.arange(batch)[:, None]).ravel()

    def hypotheses(self) -> tuple[list[Ids], Scores]:
        """The best ids of each source, without `end`, and their scores [batch].

        Beams that are still live compete with those that ended.
        """
        live, scores = self._live.argmax(1), np.maximum(self._live.max(1), self._best)
        ids = [
            self._ids[i, live[i]] if score > self._best[i] else self._best_ids[i]
            for i, score in enumerate(scores)
        ]
        return ids, scores

    def _set_aside(self, scores: Scores, ids: Ids, ended: npt.NDArray[np.bool_]) -> None:
        for source, slot in np.argwhere(ended):
            if scores[source, slot] > self._best[source]:
                self._best[source] = scores[source, slot]
                self._best_ids[source] = ids[source, slot]

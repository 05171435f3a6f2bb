"""Linear-chain conditional random fields: the best tags by the Viterbi algorithm.

The score of a sequence of tags is the sum of its emissions, of `transitions[i, j]` for each tag `j`
behind a tag `i`, and of the scores that its first and its last tag have as such. Equal scores are
settled in favour of the lower tag, from the last frame backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rnnx_runtime.arguments import Scores, hold_lengths, hold_scores
from rnnx_runtime.decoding import Ids
from rnnx_runtime.errors import InputError
from rnnx_runtime.frame_decoder import FrameDecoder


class Tagged(NamedTuple):
    """What `viterbi` found.

    Attributes:
        tags: for each sequence its best tags, int64 [length].
        scores: their scores, float64 [batch].
    """

    tags: list[Ids]
    scores: Scores


def viterbi(
    emissions: Any,
    transitions: Any,
    lengths: Any = None,
    *,
    start_transitions: Any = None,
    end_transitions: Any = None,
) -> Tagged:
    """The best tags of whole sequences.

    Args:
        emissions: [batch, time, tags], real numbers; -infinity for a tag that cannot be.
        transitions: [tags, tags], from the row's tag to the column's.
        lengths: frames of each sequence, int64 [batch], 1 to time; all of them where left out.
        start_transitions, end_transitions: [tags], of the first and the last tag; 0 where left out.

    Raises:
        InputError: an argument does not fit, or no tags are possible for a sequence.
    """
    transitions, start, end = _hold_chain(transitions, start_transitions, end_transitions)
    emissions = hold_scores("emissions", emissions, "batch", "time", len(start))
    lengths = _hold_lengths(lengths, emissions)
    scores, pointers = start + emissions[:, 0], []
    for frame in range(1, emissions.shape[1]):
        reached, best = _step(scores, transitions)
        goes_on = (frame < lengths)[:, None]
        scores = np.where(goes_on, reached + emissions[:, frame], scores)
        pointers.append(np.where(goes_on, best, np.arange(len(start))))
    scores = scores + end
    _refuse_impossible(scores)
    tags = np.concatenate(_trace(pointers, scores.argmax(1)[:, None]), axis=1)
    return Tagged([row[:n] for row, n in zip(tags, lengths, strict=True)], scores.max(1))


class ViterbiStream(FrameDecoder[Ids]):
    """The best tags of one sequence: `feed` takes emissions, and gives tags that are decided.

    A tag, int64, is decided when the best ways to all tags of the last frame run through it; so
    what is given, put together, is what `viterbi` gives for the whole. Only what is not decided is
    held, which is little unless the transitions keep two ways apart for long.

    Args:
        transitions: [tags, tags], from the row's tag to the column's.
        start_transitions, end_transitions: [tags], of the first and the last tag; 0 where left out.

    Attributes:
        score: of the best tags so far; the last tag's own is added by `flush`.

    Raises:
        InputError: an argument does not fit; or, from `feed` and `flush`, no tags are possible for
            the sequence, and the stream is as it was.
    """

    score: float

    def __init__(
        self, transitions: Any, *, start_transitions: Any = None, end_transitions: Any = None
    ) -> None:
        chain = _hold_chain(transitions, start_transitions, end_transitions)
        self._transitions, self._start, self._last = chain
        super().__init__(classes=len(self._start))

    def _begin(self) -> None:
        self.score = 0.0
        self._scores: Scores | None = None  # of the best way to each tag of the last frame
        # For each frame that is not decided, and each tag: the tag before it on the best way.
        self._pointers: list[Ids] = []

    def _advance(self, frames: Scores) -> Ids:
        scores, pointers = self._scores, []
        for emissions in frames:
            if scores is None:
                reached, best = self._start, np.zeros(len(emissions), np.int64)
            else:
                reached, best = _step(scores, self._transitions)
            scores = reached + emissions
            pointers.append(best)
        if scores is None:
            return np.zeros(0, np.int64)
        _refuse_impossible(scores)
        self._scores, self.score = scores, float(scores.max())
        self._pointers += pointers
        return self._decide(np.flatnonzero(scores > -np.inf))

    def _end(self) -> Ids:
        if self._scores is None:
            return np.zeros(0, np.int64)
        scores = self._scores + self._last
        _refuse_impossible(scores)
        self.score = float(scores.max())
        return self._decide(scores.argmax(-1, keepdims=True))

    def _decide(self, survivors: Ids) -> Ids:
        """The tags that all ways to the `survivors` have in common; they are held no longer."""
        if not self._pointers:
            return np.zeros(0, np.int64)
        ways = np.stack(_trace(self._pointers[1:], survivors))
        common = int((ways == ways[:, :1]).all(1).sum())  # once they meet, they are one
        del self._pointers[:common]
        return ways[:common, 0]


def _step(scores: Scores, transitions: Scores) -> tuple[Scores, Ids]:
    """The best score [..., tags] with which each tag is reached, and the tag before it."""
    candidates = scores[..., None] + transitions
    return candidates.max(-2), candidates.argmax(-2)


def _trace(pointers: Sequence[Ids], last: Ids) -> list[Ids]:
    """The tags of all frames on the ways to the tags `last` [..., ways] of the last frame."""
    tags = [last]
    for before in reversed(pointers):
        tags.append(np.take_along_axis(before, tags[-1], -1))
    return tags[::-1]


def _hold_chain(transitions: Any, start: Any, end: Any) -> tuple[Scores, Scores, Scores]:
    transitions = hold_scores("transitions", transitions, "tags", "tags")
    tags = transitions.shape[1]
    hold_scores("transitions", transitions, tags, tags)
    ends = {"start_transitions": start, "end_transitions": end}
    held = (
        np.zeros(tags) if value is None else hold_scores(name, value, tags)
        for name, value in ends.items()
    )
    return transitions, *held


def _hold_lengths(lengths: Any, emissions: Scores) -> npt.NDArray[Any]:
    batch, frames, _ = emissions.shape
    if not frames:
        raise InputError("emissions hold no frame: their time axis has length 0")
    held: npt.NDArray[Any] = np.asarray(np.full(batch, frames) if lengths is None else lengths)
    if held.shape != (batch,) or held.dtype.kind not in "iu":
        raise InputError(
            f"lengths is {held.dtype}{list(held.shape)}, but int64[{batch}] is taken",
            hint="Give one integer for each sequence.",
        )
    hold_lengths("emissions", held, frames)
    return held


def _refuse_impossible(scores: Scores) -> None:
    """Refuse scores [..., tags] of which all are -infinity."""
    if (scores.max(-1) == -np.inf).any():
        raise InputError(
            "no sequence of tags is possible",
            hint="Look for rows of nothing but -infinity in the emissions and the transitions.",
        )

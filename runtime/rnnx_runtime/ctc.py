"""Connectionist temporal classification: labels from frames that are mostly blank.

A path gives each frame a class; it stands for the labels that are left when repeats are collapsed
and blanks removed. Greedy search takes the best path; `ctc_beam` looks for the best labels.
"""

from __future__ import annotations

from math import inf

import numpy as np

from rnnx_runtime.arguments import Scores, hold_count
from rnnx_runtime.errors import InputError
from rnnx_runtime.frame_decoder import FrameDecoder
from rnnx_runtime.spans import Span

_ROUNDING = 1e-3  # a log probability computed in float16 may be above 0 by so much


class CTCGreedySearch(FrameDecoder[list[Span]]):
    """The labels of the best path: `feed` takes log probabilities, and gives labels that ended.

    Equal log probabilities are settled in favour of the lower class.

    Args:
        blank: the class that stands for no label.

    Raises:
        InputError: `blank` is no class.
    """

    def __init__(self, *, blank: int = 0) -> None:
        self._blank = hold_count("blank", blank, least=0)
        super().__init__()

    def _begin(self) -> None:
        self._open: list[Span] = []

    def _advance(self, frames: Scores) -> list[Span]:
        hold_log_probs(frames, self._blank)
        ids, scores = frames.argmax(1).tolist(), frames.max(1).tolist()
        ended = []
        for frame, (label, score) in enumerate(zip(ids, scores, strict=True), self.position):
            if self._open and label == self._open[0].id:
                self._open = [self._open[0].longer(score)]
                continue
            ended += self._open
            self._open = [] if label == self._blank else [Span(label, frame, frame + 1, score)]
        return ended

    def _end(self) -> list[Span]:
        return self._open


def hold_log_probs(log_probs: Scores, blank: int) -> None:
    """Refuse what are no log probabilities [time, classes], or have no class `blank`.

    Raises:
        InputError: there is no such class; or a frame has a value above 0, or -infinity alone.
    """
    if blank >= log_probs.shape[1]:
        raise InputError(
            f"blank is {blank}, but the scores have {log_probs.shape[1]} classes",
            hint="Classes are counted from 0; torch's CTC loss takes class 0 as blank.",
        )
    best = log_probs.max(1)
    wrong = np.flatnonzero((best > _ROUNDING) | (best == -inf))
    if len(wrong):
        raise InputError(
            f"the scores at index [{wrong[0]}] are no log probabilities: the largest is"
            f" {best[wrong[0]]}",
            hint="Give rnnx.log_softmax(logits).",
        )

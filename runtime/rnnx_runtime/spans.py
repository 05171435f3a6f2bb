"""Spans: what a decoder found and where; their names and times, as the contract tells them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rnnx_runtime.contract import Contract
from rnnx_runtime.errors import InputError


class Span(NamedTuple):
    """One class over some frames of a network's output.

    Attributes:
        id: the class, its place along the last axis.
        start: its first frame, from 0.
        end: the frame behind its last.
        score: the largest score that the class has in these frames.
    """

    id: int
    start: int
    end: int
    score: float

    def longer(self, score: float) -> Span:
        """This span and the next frame, in which the class has `score`."""
        return Span(self.id, self.start, self.end + 1, max(self.score, score))


def to_labels(ids: Iterable[int], contract: Contract) -> list[str]:
    """The names of classes: `contract.labels` at each of the ids.

    Raises:
        InputError: the contract names no labels, or an id has none.
    """
    labels = contract.labels
    if labels is None:
        raise InputError(
            "the artifact has no labels",
            hint="Give the model an attribute `labels`, a list of names, and export it again.",
        )
    ids = [int(i) for i in ids]
    unnamed = [i for i in ids if not 0 <= i < len(labels)]
    if unnamed:
        raise InputError(f"there is no label for id {unnamed[0]}: the artifact has {len(labels)}")
    return [labels[i] for i in ids]


def to_seconds(frame: int, contract: Contract) -> float:
    """When a frame of the first output begins, in seconds from the start of the sequence.

    Raises:
        InputError: the contract tells no sample rate.
    """
    if contract.sample_rate is None:
        raise InputError(
            "the artifact's sample rate is not known",
            hint="Give the model an attribute `sample_rate`, input frames a second, and export it"
            " again.",
        )
    return float(frame * contract.outputs[0].stride) / contract.sample_rate

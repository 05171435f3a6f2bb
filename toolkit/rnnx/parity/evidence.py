"""The worst comparison of an output, cut to a size that can be kept and drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.parity.report import Finding

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_MOST_FRAMES, _MOST_VALUES = 1024, 64


@dataclass(frozen=True, slots=True)
class Span:
    """An output in one run, every array of one shape.

    Attributes:
        actual: the artifact's.
        wanted: the reference's.
        exact: the reference's in float64; `wanted` where it is not known.
        allowed: how far each element may be from `exact`.
        batch_axis, time_axis: the axes that count sequences and frames, or None.
    """

    actual: Array
    wanted: Array
    exact: Array
    allowed: Array
    batch_axis: int | None
    time_axis: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One sequence of a comparison: of each stretch of frames the worst, of the values the worst.

    Attributes:
        finding: what was found of it.
        sequence: its place in the batch.
        size: frames and values of the whole sequence.
        steps: the frames kept, `[frames]`; one where the output has no time axis.
        values: the places of the values kept in a flattened frame, `[values]`.
        actual, wanted, exact, allowed: as in `Span`, float64 `[frames, values]`.
    """

    finding: Finding
    sequence: int
    size: tuple[int, int]
    steps: npt.NDArray[np.int64]
    values: npt.NDArray[np.int64]
    actual: Floats
    wanted: Floats
    exact: Floats
    allowed: Floats

    @property
    def error(self) -> Floats:
        """|artifact - reference|, `[frames, values]`; infinite where one is NaN or infinite."""
        return _distance(self.actual, self.exact)

    @property
    def noise(self) -> Floats:
        """|float32 - float64| of the reference itself, `[frames, values]`."""
        return _distance(self.wanted, self.exact)

    @property
    def has_time(self) -> bool:
        """Whether its frames follow one another in time."""
        return self.finding.time_step is not None or self.size[0] > 1


def gather(finding: Finding, span: Span) -> Evidence | None:
    """The sequence in which the worst element is; None where the two cannot be subtracted."""
    if span.actual.shape != span.exact.shape or not span.actual.size:
        return None
    batch = span.batch_axis
    sequence = 0 if finding.index is None or batch is None else finding.index[batch]
    names = ("actual", "wanted", "exact", "allowed")
    arrays = {name: _sequence(getattr(span, name), span, sequence) for name in names}
    excess = _distance(arrays["actual"], arrays["exact"]) - arrays["allowed"]
    steps, values = _worst_of_each_stretch(excess.max(1)), _farthest(excess.max(0))
    kept = {name: array[np.ix_(steps, values)] for name, array in arrays.items()}
    frames, width = excess.shape
    return Evidence(finding, sequence, (frames, width), steps, values, **kept)


def _sequence(array: Array, span: Span, sequence: int) -> Floats:
    """One sequence as `[frames, values]`."""
    chosen = array if span.batch_axis is None else array.take([sequence], span.batch_axis)
    ordered = chosen[None] if span.time_axis is None else np.moveaxis(chosen, span.time_axis, 0)
    return ordered.reshape(len(ordered), -1).astype(np.float64)


def _distance(actual: Floats, exact: Floats) -> Floats:
    same = (actual == exact) | (np.isnan(actual) & np.isnan(exact))
    with np.errstate(invalid="ignore"):
        distance = np.abs(actual - exact)
    return np.where(same, 0.0, np.where(np.isnan(distance), math.inf, distance))


def _worst_of_each_stretch(excess: Floats) -> npt.NDArray[np.int64]:
    length = math.ceil(len(excess) / _MOST_FRAMES)
    starts = range(0, len(excess), length)
    return np.array([start + excess[start : start + length].argmax() for start in starts])


def _farthest(excess: Floats) -> npt.NDArray[np.int64]:
    return np.sort(np.argsort(-excess, kind="stable")[:_MOST_VALUES])

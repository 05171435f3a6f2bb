"""What a level did to a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

# What the layers met on calibration data, by the names of their weights; see `observing`.
Observed = Callable[[], Mapping[str, npt.NDArray[Any]]]


@dataclass(slots=True)
class Change:
    """What a level did to a graph.

    Attributes:
        changed: nodes whose weights became smaller, by the operator they had.
        notes: what was left as it was and why, in sentences.
        reduced_range: for levels that compute in int8, whether their weights use [-64, 64] only.
    """

    changed: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    reduced_range: bool | None = None


def nothing() -> dict[str, npt.NDArray[Any]]:
    """What is observed without calibration data."""
    return {}

"""What a level is given besides a graph, and what it did to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

# What the layers met on calibration data, by the names of their weights; see `observing`.
Observed = Callable[[], Mapping[str, npt.NDArray[Any]]]


def nothing() -> dict[str, npt.NDArray[Any]]:
    """What is observed without calibration data."""
    return {}


@dataclass(frozen=True, slots=True)
class Given:
    """What a level is given besides a graph.

    Attributes:
        observed: gives what the layers met on calibration data.
        streaming: whether few frames come at a time.
        ways: what is to become of recurrent nodes, by their names: `"float"` (computed in float32),
            `"operator"` (by one quantized operator) or `"gates"` (by operators for its gates). By
            the size of a node where it is not named.
    """

    observed: Observed = nothing
    streaming: bool = False
    ways: Mapping[str, str] = field(default_factory=dict)


NOTHING_GIVEN = Given()


@dataclass(slots=True)
class Change:
    """What a level did to a graph.

    Attributes:
        changed: nodes whose weights became smaller, by the operator they had.
        notes: what was left as it was and why, in sentences.
        invariance: what changes no bit of a sequence's results: `"all"` (neither where it is cut
            into chunks nor what else is in the batch), `"chunks"` (where one sequence is cut) or
            `"none"`.
    """

    changed: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    invariance: str = "all"

"""What a level did to a graph."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


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

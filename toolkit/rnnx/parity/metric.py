"""The user's own metric: how good an artifact must be at what it is for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from rnnx.user_code import told
from rnnx_runtime.errors import InputError

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of the outputs, and its limits.

    Attributes:
        function: takes the outputs by name and the inputs by name, labels among them, of one
            recording; gives a number. A higher one is better, unless the function has an attribute
            `lower_is_better` that is true.
        floor: the worst figure that passes.
        drop: by how much the figure may be worse than the reference's: `0.01`, or in percent of the
            reference's, `"0.5%"`.

    Raises:
        InputError: there is no limit, or one that is no number.
    """

    function: Callable[[Arrays, Arrays], float]
    floor: float | None = None
    drop: float | str | None = None

    def __post_init__(self) -> None:
        if self.floor is None and self.drop is None:
            raise InputError(
                "a metric without a limit proves nothing",
                hint="Give the worst figure that passes (floor), the largest drop, or both.",
            )
        limits = (self.floor or 0.0, self._allowed(1.0))
        if not all(map(math.isfinite, limits)) or limits[1] < 0:
            raise InputError(
                f"a floor is a number and a drop one of 0 or more; they are {self.floor} and"
                f" {self.drop}",
                hint='Write a drop as 0.01, or as "0.5%" of what the reference reaches.',
            )

    @property
    def name(self) -> str:
        """The function's."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def lower_is_better(self) -> bool:
        """Whether a lower figure is better."""
        return bool(getattr(self.function, "lower_is_better", False))

    def figure(self, outputs: Arrays, inputs: Arrays) -> float:
        """What the function gives.

        Raises:
            InputError: it raises, or gives no number.
        """
        try:
            return float(self.function(outputs, inputs))
        except Exception as error:  # the user's code may raise anything
            raise InputError(f"the metric {self.name!r} raised {told(error)}") from error

    def passes(self, figure: float, reference: float) -> bool:
        """Whether a figure keeps the limits; NaN never does."""
        sign = -1.0 if self.lower_is_better else 1.0
        above = self.floor is None or sign * figure >= sign * self.floor
        near = self.drop is None or sign * (reference - figure) <= self._allowed(reference)
        return not math.isnan(figure) and above and near

    @property
    def limits(self) -> str:
        """What passes, for a person."""
        side = "at most" if self.lower_is_better else "at least"
        parts = [] if self.floor is None else [f"{side} {self.floor:g}"]
        parts += [] if self.drop is None else [f"worse than the reference by {self.drop} at most"]
        return ", ".join(parts)

    def _allowed(self, reference: float) -> float:
        text = str(0.0 if self.drop is None else self.drop)
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            return math.nan
        return number / 100 * abs(reference) if text.endswith("%") else number

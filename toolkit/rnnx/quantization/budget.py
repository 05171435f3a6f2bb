"""A budget: what a smaller artifact must keep, or may not exceed."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass

from rnnx.parity.metric import Metric
from rnnx.quantization.report import Point
from rnnx_runtime.errors import InputError

METRIC = "metric"
_UNITS = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2}
_NUMBER = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))\s*([A-Za-z]*|%)")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a smaller artifact must keep, or may not exceed.

    Attributes:
        kind: `"snr"`, `"size"` or `"metric"`.
        amount: the least SNR of any output and state, in dB; the most bytes of the file; or by how
            much the metric's figure may change, in percent of the original's: a negative one where
            a higher figure is better.
        reference: the metric's figure of the original.
    """

    kind: str
    amount: float
    reference: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `"snr=35"` (dB), `"size=200KB"` (of 1024 bytes; also B and MB), `"metric=-0.5%"`.

        Raises:
            InputError: it is none of these.
        """
        kind, _, amount = (part.strip() for part in text.partition("="))
        number = _NUMBER.fullmatch(amount)
        value, unit = (float(number[1]), number[2].upper()) if number else (math.nan, "")
        if kind == METRIC and unit == "%" and amount[0] in "+-" and math.isfinite(value):
            return cls(METRIC, value)
        if kind == "snr" and unit in ("", "DB") and 0 <= value < math.inf:
            return cls("snr", value)
        if kind == "size" and unit in _UNITS and 0 < value < math.inf:
            return cls("size", int(value * _UNITS[unit]))
        raise InputError(
            f"{text!r} is no budget",
            hint="Write snr=35 (dB, of the worst output), size=200KB, metric=-0.5% (of a figure"
            " that is better when higher) or metric=+0.5% (when lower).",
        )

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric's figure is better when it is lower."""
        return math.copysign(1.0, self.amount) > 0  # -0 % has a sign too

    def hold(self, metric: Metric | None) -> None:
        """Refuse a budget of a metric that is not there, or that is better the other way round.

        Raises:
            InputError: it is so.
        """
        if self.kind != METRIC:
            return
        if metric is None:
            raise InputError(
                f"the budget {self} is of a metric, and none is given",
                hint="Give one, and the data it reads: --metric score.py:function --calibrate FILE,"
                " or metric=function and calibration=.",
            )
        if metric.lower_is_better and not self.lower_is_better:
            raise InputError(
                f"of {metric.name!r} a lower figure is better, and {self} lets it fall",
                hint=f"Write {dataclasses.replace(self, amount=-self.amount)}.",
            )

    def from_reference(self, figure: float | None) -> Budget:
        """The same, of a metric that gives this figure for the original.

        Raises:
            InputError: it is no number, so nothing can be held to it.
        """
        if self.kind != METRIC:
            return self
        if figure is None:
            raise InputError(
                "the metric gives NaN or infinity for the original, to which nothing can be held",
                hint="Give a metric and calibration data that give a number.",
            )
        return dataclasses.replace(self, reference=figure)

    def measured(self, point: Point) -> float | None:
        """The metric's figure, or the SNR in dB; None where that was not measured."""
        return point.figure if self.kind == METRIC else point.snr_db

    def quality(self, point: Point) -> float:
        """The same so that more is better, and minus infinity where it was not measured."""
        measured = self.measured(point)
        return -math.inf if measured is None else self._sign * measured

    def is_met(self, point: Point) -> bool:
        """Whether it keeps the budget."""
        if self.kind == "size":
            return point.bytes <= self.amount
        return self.quality(point) >= self._sign * self.limit

    def told(self, point: Point) -> str:
        """What it reaches, for a person."""
        measured = self.measured(point)
        if measured is None:
            return "nothing measured"
        return f"a figure of {measured:.6g}" if self.kind == METRIC else f"{measured:.1f} dB"

    def order(self, point: Point) -> tuple[float, float]:
        """The lowest is the best of those that keep the budget."""
        order = (point.bytes, -self.quality(point))
        return order[::-1] if self.kind == "size" else order

    def __str__(self) -> str:
        if self.kind == METRIC:
            return f"metric={self.amount:+g}%"
        if self.kind == "snr":
            return f"snr={self.amount:g}"
        unit = next(u for u in ("MB", "KB", "B") if not self.amount % _UNITS[u])
        return f"size={self.amount / _UNITS[unit]:.0f}{unit}"

    @property
    def limit(self) -> float:
        """The worst figure or SNR that keeps it, or the most bytes."""
        if self.kind != METRIC:
            return self.amount
        return self.reference - self._sign * abs(self.amount / 100 * self.reference)

    @property
    def _sign(self) -> float:
        return -1.0 if self.kind == METRIC and self.lower_is_better else 1.0

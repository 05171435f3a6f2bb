"""A budget: what a mixture must keep, or may not exceed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from rnnx_runtime.errors import InputError

_UNITS = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2}
_NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([A-Za-z]*)")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a mixture must keep, or may not exceed.

    Attributes:
        snr_db: the least SNR of any output and state, in dB; None where `size` is given.
        size: the most bytes of the file.
    """

    snr_db: float | None = None
    size: int | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read `"snr=35"` (dB) or `"size=200KB"` (of 1024 bytes; also B and MB).

        Raises:
            InputError: it is neither.
        """
        name, _, amount = text.partition("=")
        number = _NUMBER.fullmatch(amount.strip())
        if number is None:
            raise _unknown(text)
        value, unit = float(number[1]), number[2].upper()
        if name.strip() == "snr" and unit in ("", "DB") and math.isfinite(value):
            return cls(snr_db=value)
        if name.strip() == "size" and unit in _UNITS and value > 0:
            return cls(size=int(value * _UNITS[unit]))
        raise _unknown(text)

    def is_met(self, size: int, snr_db: float) -> bool:
        """Whether a file of so many bytes, so near the original, keeps it."""
        if self.size is not None:
            return size <= self.size
        return snr_db >= (self.snr_db or 0.0)

    def cost(self, size: int, snr_db: float) -> float:
        """What is to be as low as can be among those that keep it."""
        return -snr_db if self.size is not None else size

    def __str__(self) -> str:
        return f"size={self.size}B" if self.size is not None else f"snr={self.snr_db:g}"


def _unknown(text: str) -> InputError:
    return InputError(
        f"{text!r} is no budget",
        hint="Write snr=35 (dB, of the worst output) or size=200KB.",
    )

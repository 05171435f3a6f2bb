"""Finds the smallest mixture that keeps a budget, by what each part costs in bytes and in noise."""

from __future__ import annotations

import math
import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rnnx.quantization.budget import Budget
from rnnx.quantization.calibration import Feeds
from rnnx.quantization.change import Change, Given
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.mixture import BITS, Mixture, Part
from rnnx.quantization.quality import measure_quality, open_runner
from rnnx.quantization.report import Point
from rnnx.quantization.writing import sealed, write
from rnnx_exporters.artifact import load_graph
from rnnx_runtime.contract import Contract
from rnnx_runtime.errors import QuantizationError

Bits = dict[Part, int]
Apply = Callable[[ir.Model], Change]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        apply: makes a graph so.
        chosen: what it is.
        front: what was measured and is beaten by nothing in both bytes and SNR, smallest first.
        reasons: for each part, in a sentence, what fewer bits would cost.
    """

    apply: Apply
    chosen: Point
    front: tuple[Point, ...]
    reasons: tuple[str, ...]


def search(
    src: str | os.PathLike[str],
    contract: Contract,
    given: Given,
    budget: Budget,
    runs: list[Feeds],
    chunk: int | None,
    tell: Callable[[str], None],
) -> Found:
    """Find the smallest mixture or level that keeps a budget, or the nearest of that size.

    Each part is measured alone at 4 and at 8 bits. From all at 4 bits on, the part whose next step
    takes the most noise away for a byte gets more bits, until the budget is kept; then each part
    in turn is tried with fewer. Every step is measured, none assumed, and so is every level.

    Raises:
        QuantizationError: nothing keeps the budget.
    """
    trial = _Trial(src, contract, runs, chunk, given)
    alone: dict[tuple[Part, int], float] = {}
    for number, part in enumerate(trial.mixture.parts, 1):
        tell(f"measuring {part} alone ({number} of {len(trial.mixture.parts)}) ...")
        alone |= {(part, bits): _noise(trial.mixed({part: bits})) for bits in BITS[:-1]}
    tell("raising bits where they tell most ...")
    best = _refined(trial, budget, _lowest(trial, budget, _path(trial.mixture, alone)))
    tell("measuring every level ...")
    levels = [point for name in LEVELS if (point := trial.level(name)) is not None]
    met = [p for p in (trial.mixed(best), *levels) if budget.is_met(p.bytes, p.snr_db)]
    if not met:
        raise _unmet(budget, [*trial.measured.values(), *levels])
    chosen = min(met, key=lambda point: budget.cost(point.bytes, point.snr_db))
    apply = partial(trial.mixture.apply, bits=best) if chosen.bits else _level(chosen.name, given)
    front = _front([*trial.measured.values(), *levels])
    return Found(apply, chosen, front, tuple(_reasons(best, alone) if chosen.bits else ()))


class _Trial:
    """Makes files of mixtures and levels, and measures each once."""

    def __init__(
        self,
        src: str | os.PathLike[str],
        contract: Contract,
        runs: list[Feeds],
        chunk: int | None,
        given: Given,
    ) -> None:
        self._src, self._contract, self._runs, self._chunk = src, contract, runs, chunk
        self._given = given
        self._original = open_runner(src, contract)
        self.mixture = Mixture(load_graph(src), given.observed())
        self.measured: dict[frozenset[tuple[Part, int]], Point] = {}

    def mixed(self, bits: Bits) -> Point:
        """A mixture, measured."""
        key = frozenset(bits.items())
        if key not in self.measured:
            named = {str(part): count for part, count in bits.items()}
            made = self._made(partial(self.mixture.apply, bits=bits), "mixture", named)
            assert made is not None
            self.measured[key] = made
        return self.measured[key]

    def level(self, name: str) -> Point | None:
        """A level, measured; None where it cannot be made."""
        try:
            return self._made(_level(name, self._given), name, {})
        except QuantizationError:
            return None

    def _made(self, apply: Apply, name: str, bits: Mapping[str, int]) -> Point | None:
        model = load_graph(self._src)
        if not apply(model).changed:
            return None
        record: dict[str, Any] = {"level": "auto", "bits": bits}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tried.onnx"
            size = write(model, sealed(model, self._contract), record, path)
            runner = open_runner(path, self._contract)
            quality = measure_quality(
                self._original, runner, self._contract, self._runs, self._chunk
            )
        return Point(name, size, min(quality.snr_db.values(), default=float("inf")), bits)


def _level(name: str, given: Given) -> Apply:
    return lambda model: LEVELS[name](model, given)


def _noise(point: Point) -> float:
    """The power of the error over that of the output."""
    return float(10 ** (-point.snr_db / 10))


def _path(mixture: Mixture, alone: Mapping[tuple[Part, int], float]) -> list[Bits]:
    """Mixtures from all parts at the fewest bits to all at the most, one step each."""
    bits = dict.fromkeys(mixture.parts, BITS[0])
    path = [dict(bits)]
    while any(count < BITS[-1] for count in bits.values()):
        steps = [part for part, count in bits.items() if count < BITS[-1]]
        part = max(steps, key=lambda each: _gain(mixture, alone, each, bits[each]))
        bits[part] = _more(bits[part])
        path.append(dict(bits))
    return path


def _gain(
    mixture: Mixture, alone: Mapping[tuple[Part, int], float], part: Part, bits: int
) -> float:
    """The noise that a step takes away for each byte that it adds."""
    removed = alone[part, bits] - alone.get((part, _more(bits)), 0.0)
    added = mixture.size(part, _more(bits)) - mixture.size(part, bits)
    return removed / max(added, 1)


def _more(bits: int) -> int:
    return BITS[BITS.index(bits) + 1]


def _lowest(trial: _Trial, budget: Budget, path: list[Bits]) -> Bits:
    """Where on the path the budget begins to be kept; of sizes, the last that keeps it."""

    def is_beyond(place: int) -> bool:
        point = trial.mixed(path[place])
        met = budget.is_met(point.bytes, point.snr_db)
        return met if budget.size is None else not met

    place = bisect_left(range(len(path)), True, key=is_beyond)
    if budget.size is not None:
        place -= 1
    return path[min(max(place, 0), len(path) - 1)]


def _refined(trial: _Trial, budget: Budget, bits: Bits) -> Bits:
    """The same with each part in turn at fewer bits, where that keeps the budget and gains."""
    for part in sorted(bits, key=lambda each: -trial.mixture.size(each, bits[each])):
        if bits[part] == BITS[0]:
            continue
        fewer = bits | {part: BITS[BITS.index(bits[part]) - 1]}
        now, then = trial.mixed(bits), trial.mixed(fewer)
        gains = budget.cost(then.bytes, then.snr_db) < budget.cost(now.bytes, now.snr_db)
        if gains and budget.is_met(then.bytes, then.snr_db):
            bits = fewer
    return bits


def _front(points: list[Point]) -> tuple[Point, ...]:
    """Those beaten by no other in both bytes and SNR, smallest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda each: (each.bytes, -each.snr_db)):
        if not front or point.snr_db > front[-1].snr_db:
            front.append(point)
    return tuple(front)


def _reasons(bits: Bits, alone: Mapping[tuple[Part, int], float]) -> list[str]:
    return [
        f"{part}: {count} bits; alone with "
        + ", with ".join(f"{b} bits {_decibels(alone[part, b])}" for b in BITS[:-1])
        for part, count in bits.items()
    ]


def _decibels(noise: float) -> str:
    return f"{-10 * math.log10(max(noise, 1e-14)):.1f} dB"


def _unmet(budget: Budget, points: list[Point]) -> QuantizationError:
    nearest = min(points, key=lambda p: p.bytes if budget.size is not None else -p.snr_db)
    return QuantizationError(
        f"nothing keeps the budget {budget}; the nearest is a file of {nearest.bytes} bytes with"
        f" {nearest.snr_db:.1f} dB ({nearest.name})",
        hint="Allow more, or train a smaller network.",
    )

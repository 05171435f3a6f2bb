"""Finds the smallest mixture that keeps a budget, by what each part costs in bytes and in noise."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rnnx.quantization.budget import Budget
from rnnx.quantization.journal import Journal
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.making import Apply
from rnnx.quantization.mixture import BITS, Mixture, Part
from rnnx.quantization.original import Original
from rnnx.quantization.report import Point
from rnnx.quantization.trial import Bits, Trial
from rnnx_runtime.errors import QuantizationError

Alone = Mapping[tuple[str, int], Point]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        apply: makes a graph so.
        chosen: what it is.
        front: what was measured and is beaten by nothing in both bytes and quality, smallest first.
        levels: what was measured of the levels.
        reasons: for each part, in a sentence, what fewer bits would cost.
    """

    apply: Apply
    chosen: Point
    front: tuple[Point, ...]
    levels: tuple[Point, ...]
    reasons: tuple[str, ...]


def search(original: Original, budget: Budget, journal: Journal, tell: Tell) -> Found:
    """Find the best mixture or level that keeps a budget.

    Each part is measured alone at 4 and at 8 bits. From all at 4 bits on, the part whose next step
    takes the most noise away for a byte gets more bits, until the budget is kept; then each part
    in turn is tried with fewer, or, where the size is given, with more. Every step is measured,
    none assumed, and so is every level.

    Raises:
        QuantizationError: nothing keeps the budget, or nothing tells how near it is.
    """
    trial = Trial(original, journal)
    alone = _alone(trial, tell)
    if trial.mixture.parts:
        tell("raising bits where they tell most ...")
        _refined(trial, budget, _lowest(trial, budget, _path(trial.mixture, alone)))
    tell("measuring every level ...")
    for name in LEVELS:
        trial.level(name)
    points = list(trial.points.values())
    chosen = _chosen(points, budget)
    tell("timing a step of the best ...")
    return Found(
        apply=trial.apply_of(chosen),
        chosen=trial.timed(chosen),
        front=tuple(map(trial.timed, _front(points, budget))),
        levels=tuple(trial.timed(point) for point in points if point.name in LEVELS),
        reasons=tuple(_reasons(chosen, alone)),
    )


def _alone(trial: Trial, tell: Tell) -> Alone:
    """What each part costs by itself, by its name and its bits."""
    alone: dict[tuple[str, int], Point] = {}
    parts = trial.mixture.parts
    for number, part in enumerate(parts, 1):
        tell(f"measuring {part} alone ({number} of {len(parts)}) ...")
        alone |= {(str(part), bits): trial.mixed({part: bits}) for bits in BITS[:-1]}
    return alone


def _noise(point: Point) -> float:
    """The power of the error over that of the output."""
    return 0.0 if point.snr_db is None else float(10 ** min(-point.snr_db / 10, 300))


def _path(mixture: Mixture, alone: Alone) -> list[Bits]:
    """Mixtures from all parts at the fewest bits to all at the most, one step each."""
    bits = dict.fromkeys(mixture.parts, BITS[0])
    path = [dict(bits)]
    while any(count < BITS[-1] for count in bits.values()):
        steps = [part for part, count in bits.items() if count < BITS[-1]]
        part = max(steps, key=lambda each: _gain(mixture, alone, each, bits[each]))
        bits[part] = _next(bits[part], 1)
        path.append(dict(bits))
    return path


def _gain(mixture: Mixture, alone: Alone, part: Part, bits: int) -> float:
    """The noise that a step takes away for each byte that it adds."""
    more = _next(bits, 1)
    noise = [_noise(alone[str(part), b]) if b < BITS[-1] else 0.0 for b in (bits, more)]
    return (noise[0] - noise[1]) / max(mixture.size(part, more) - mixture.size(part, bits), 1)


def _next(bits: int, step: int) -> int:
    """One step more or fewer, where there is one."""
    place = BITS.index(bits) + step
    return BITS[min(max(place, 0), len(BITS) - 1)]


def _lowest(trial: Trial, budget: Budget, path: list[Bits]) -> Bits:
    """Where on the path the budget begins to be kept; of sizes, the last that keeps it."""
    ends = budget.kind == "size"
    place = bisect_left(
        range(len(path)), True, key=lambda i: budget.is_met(trial.mixed(path[i])) != ends
    )
    return path[min(max(place - ends, 0), len(path) - 1)]


def _refined(trial: Trial, budget: Budget, bits: Bits) -> Bits:
    """The same with parts in turn at fewer bits, or more, while that keeps the budget and gains."""
    step, better = (1 if budget.kind == "size" else -1), bits
    for part in sorted(bits, key=lambda each: -trial.mixture.size(each, bits[each])):
        other = better | {part: _next(better[part], step)}
        points = [trial.mixed(each) for each in (other, better)]
        if min(filter(budget.is_met, points), key=budget.order, default=None) is points[0]:
            better = other
    return bits if better == bits else _refined(trial, budget, better)


def _chosen(points: list[Point], budget: Budget) -> Point:
    if not points:
        raise QuantizationError(
            "level 'auto' would change nothing: no weight is large enough to become smaller",
            hint="Leave the network as it is.",
        )
    if all(budget.quality(point) == -math.inf for point in points):
        raise QuantizationError(
            f"nothing tells how near the budget {budget} is: no output and no state could be"
            " measured so",
            hint="Give a metric of your own and a budget of it: metric=-0.5%.",
        )
    met = [point for point in points if budget.is_met(point)]
    if not met:
        raise _unmet(budget, points)
    return min(met, key=budget.order)


def _front(points: list[Point], budget: Budget) -> list[Point]:
    """Those beaten by no other in both bytes and quality, smallest first."""
    front, best = [], -math.inf
    for point in sorted(points, key=lambda each: (each.bytes, -budget.quality(each))):
        if budget.quality(point) > best:
            front.append(point)
            best = budget.quality(point)
    return front


def _reasons(chosen: Point, alone: Alone) -> list[str]:
    return [
        f"{part}: {count} bits; alone with "
        + ", with ".join(f"{b} bits {_decibels(alone[part, b])}" for b in BITS[:-1])
        for part, count in chosen.bits.items()
    ]


def _decibels(point: Point) -> str:
    return "nothing measured" if point.snr_db is None else f"{point.snr_db:.1f} dB"


def _unmet(budget: Budget, points: list[Point]) -> QuantizationError:
    is_size = budget.kind == "size"
    nearest = min(points, key=lambda p: p.bytes if is_size else -budget.quality(p))
    return QuantizationError(
        f"nothing keeps the budget {budget}; the nearest is a file of {nearest.bytes} bytes with"
        f" {budget.told(nearest)} ({nearest.name})",
        hint="Allow more, or train a smaller network. What was measured is kept beside the result,"
        " so that another budget is found soon.",
    )

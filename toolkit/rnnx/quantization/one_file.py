"""Writes one file smaller, at a level or within a budget, and measures what that costs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rnnx.quantization.budget import Budget
from rnnx.quantization.journal import Journal
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.making import Apply, Made, make, record_of
from rnnx.quantization.original import Original
from rnnx.quantization.report import QuantizationReport
from rnnx.quantization.search import Found, search
from rnnx.quantization.trial import AUTO
from rnnx.quantization.tuning import choose_ways
from rnnx_runtime.errors import QuantizationError
from rnnx_runtime.files import replacing

Tell = Callable[[str], None]

_SLOWER = 1.1  # what cannot be taken for noise

# The levels that compute with what they keep, and those that keep as much and compute in float32.
KEEPING = {"int8": "int8-store", "int8-block": "int8-store", "int4": "int4-store"}


@dataclass(frozen=True, slots=True)
class Way:
    """How files become smaller.

    Attributes:
        level: the level.
        tune: whether to take the fastest way to compute each recurrent layer, timed here.
        budget: what level auto has to keep.
        tell: is told what is being done.
    """

    level: str
    tune: bool
    budget: Budget | None
    tell: Tell


def write_smaller(
    original: Original,
    dst: str | os.PathLike[str],
    way: Way,
    journals: ExitStack,
    *,
    kept: str | os.PathLike[str],
) -> QuantizationReport:
    """Write an artifact smaller, and measure it, as `quantize` does.

    Args:
        original: the artifact.
        dst: where the smaller one goes.
        way: how.
        journals: what a search measures is kept until this is closed, and removed where nothing is
            raised.
        kept: beside what.
    """
    if way.budget is None:
        return write_level(original, dst, way.level, tune=way.tune, tell=way.tell)
    way.budget.hold(original.metric)
    budget = way.budget.from_reference(original.own_figure)
    journal = journals.enter_context(Journal(kept, original))
    if journal.points:
        way.tell(f"going on: {len(journal.points)} files were measured before ({journal.path})")
    found = search(original, budget, journal, way.tell)
    return _written(original, dst, _Plan(AUTO, found.apply, budget=budget, found=found), journal)


def write_level(
    original: Original, dst: str | os.PathLike[str], level: str, *, tune: bool, tell: Tell
) -> QuantizationReport:
    """Write an artifact at a level, and measure it, as `quantize` does."""
    apply, given, timed = LEVELS[level], original.given, list[str]()
    if tune:
        ways, timed = choose_ways(
            original.path, original.contract, apply, original.runs[0], original.chunk, tell
        )
        given = dataclasses.replace(given, ways=ways)
    return _written(original, dst, _Plan(level, lambda model: apply(model, given), tuple(timed)))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be written.

    Attributes:
        level: the level.
        apply: makes a graph so.
        timed: why it computes as it does, in sentences.
        budget: what level auto has to keep.
        found: what level auto found.
    """

    level: str
    apply: Apply
    timed: tuple[str, ...] = ()
    budget: Budget | None = None
    found: Found | None = None

    def record(self) -> dict[str, Any]:
        """What the contract and the report tell of the search."""
        return {"budget": str(self.budget), "bits": self.found.chosen.bits} if self.found else {}


def _written(
    original: Original,
    dst: str | os.PathLike[str],
    plan: _Plan,
    journal: Journal | None = None,
) -> QuantizationReport:
    with replacing(dst) as beside:
        made = make(original, plan.level, plan.apply, beside)
        quality, figure = original.quality(made.runner), original.figure(made.runner)
        invariance, rounding = original.invariance(made.runner, made.change.invariance)
        record = record_of(original, made, plan.level, quality, figure) | plan.record()
        record |= {"invariance": invariance}
        report = QuantizationReport(
            **record,
            source_bytes=original.bytes,
            output_bytes=made.write(record, beside),
            step_time_ratio=original.step_time(made.runner),
            source_figure=original.own_figure,
            notes=(*plan.timed, *made.change.notes, *quality.notes, *rounding),
        )
        report = _with_search(report, plan, journal)
    return dataclasses.replace(report, notes=(*report.notes, *_advice(report, made)))


def _with_search(
    report: QuantizationReport, plan: _Plan, journal: Journal | None
) -> QuantizationReport:
    """The report with what was searched; of what was chosen, the file itself is what counts.

    Raises:
        QuantizationError: that does not keep the budget.
    """
    found, budget = plan.found, plan.budget
    if found is None or budget is None or journal is None:
        return report
    chosen = dataclasses.replace(
        found.chosen,
        bytes=report.output_bytes,
        snr_db=report.worst_snr_db,
        figure=report.figure,
        step_time_ratio=report.step_time_ratio,
    )
    if not budget.is_met(chosen):
        raise QuantizationError(
            f"the file does not keep {budget}, as it did when it was measured first",
            hint=f"Remove {journal.path}, which tells of that, and run again.",
        )
    front = tuple(chosen if point is found.chosen else point for point in found.front)
    levels = tuple(chosen if point is found.chosen else point for point in found.levels)
    return dataclasses.replace(
        report, chosen=chosen, front=front, levels=levels, reasons=found.reasons
    )


def _advice(report: QuantizationReport, made: Made) -> list[str]:
    advice = []
    if report.measured_on == "random inputs":
        advice.append("Measured on random inputs: give calibration data to measure on yours.")
    keeping = KEEPING.get(report.chosen.name if report.chosen else report.level)
    if keeping and made.computes and report.step_time_ratio > _SLOWER:
        advice.append(
            f"A step is slower than before: {keeping} is about as small, and computes in float32."
        )
    if report.output_bytes >= report.source_bytes:
        advice.append("The file is no smaller: the network is too small to gain from this.")
    return advice

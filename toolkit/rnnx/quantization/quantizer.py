"""The door: one artifact in, a smaller one out, and a report of what that cost."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rnnx.quantization.budget import Budget
from rnnx.quantization.calibration import Calibration
from rnnx.quantization.folder import quantize_folder
from rnnx.quantization.journal import SUFFIX, Journal
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.making import Apply, Made, make, record_of
from rnnx.quantization.original import Function, Original, open_original
from rnnx.quantization.report import QuantizationReport
from rnnx.quantization.search import Found, search
from rnnx.quantization.trial import AUTO
from rnnx.quantization.tuning import choose_ways
from rnnx_runtime.errors import InputError, QuantizationError
from rnnx_runtime.files import refuse_overwriting, replacing, writable

Tell = Callable[[str], None]

_SLOWER = 1.1  # what cannot be taken for noise

# The levels that compute with what they keep, and those that keep as much and compute in float32.
KEEPING = {"int8": "int8-store", "int8-block": "int8-store", "int4": "int4-store"}


def quantize(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    level: str = "int8",
    calibration: Calibration | None = None,
    chunk: int | None = None,
    batch: int | None = None,
    tune: bool = False,
    budget: str | None = None,
    metric: Function | None = None,
    tell: Tell = lambda text: None,
) -> QuantizationReport:
    """Write `src` to `dst` with smaller weights, and measure what that costs.

    Both are run on the same inputs before `dst` is written, as they are deployed: a streaming
    artifact chunk after chunk, any other whole. What the level promises of chunks and of other
    sequences is proven on them.

    Args:
        src: an artifact, or any ONNX file that onnxruntime runs, in one file; or the folder of an
            encoder-decoder, which becomes the folder `dst`.
        dst: where the smaller one goes; the contract's inputs, outputs and states stay the same.
        level: `"fp16-store"`, `"int8-store"`, `"int4-store"`, `"int8"`, `"int8-block"`,
            `"int4"`, or `"auto"`: what keeps `budget` at the least size.
        calibration: what to measure on, and what weights of four bits are rounded by: an array
            `[batch, time, ...]` as the contract's input says, arrays by input name, the path of an
            `.npy` or `.npz` file of these, or of a folder of such files, an iterable of any of
            them, or `"module:function"` or `"path/file.py:function"`, which gives them when called
            without arguments, a generator for one. No more is read once there are 100,000 frames.
            Without it, random inputs.
        chunk: frames that are fed at a time where it is deployed; without it, as few as can be run,
            mostly one.
        batch: sequences that advance together where it is deployed; without it, as many as each run
            of the calibration data holds, of random inputs one where it streams, else two.
        tune: time on this device, at that chunk and batch, every way to compute each recurrent
            layer, and take the fastest, instead of going by its size; float32 where none gains.
        budget: for `"auto"`: `"snr=35"`, the least SNR in dB of any output and state on these
            runs; `"size=200KB"`, the most the file may take; or by how much the figure of `metric`
            may be worse, relative to the original's: `"metric=-0.5%"` where a higher one is better,
            `"metric=+0.5%"` where a lower one is. Each matrix of each layer, and of GRU and LSTM
            the gates and the candidate, gets its own bits (see `search`). What was measured is kept
            beside `dst` until that is written, so that a search that was ended goes on.
        metric: as `rnnx.parity.Metric` takes it: gives a figure for the outputs and the inputs by
            name, labels among these, of one run of the calibration data. The mean is reported.
        tell: is told what is being done.

    Raises:
        InputError: `level` is unknown, the calibration data does not fit, or `src` cannot run such
            chunks or batches, there is nothing to tune, the metric raises or gives no number,
            `dst` is `src` or the calibration data, or what was kept beside `dst` is of another
            search.
        ArtifactError: `src` is missing, not ONNX, or damaged; `dst` has no folder.
        QuantizationError: nothing would change, `src` is quantized already, the result gives NaN or
            infinity, nothing keeps the budget, or the level does not hold what it promises. Nothing
            is written.
    """
    _refuse_unknown(level)
    wanted = _budget(level, budget, tune)
    refuse_overwriting(
        dst, src, calibration if isinstance(calibration, str | os.PathLike) else None
    )
    if Path(src).is_dir():
        _refuse_for_folder(calibration, metric, wanted)
        options: dict[str, Any] = {"chunk": chunk, "batch": batch, "tune": tune, "budget": budget}
        return quantize_folder(partial(quantize, level=level, tell=tell, **options), src, dst)
    writable(dst)
    original = open_original(src, calibration=calibration, chunk=chunk, batch=batch, metric=metric)
    if wanted is None:
        return write_level(original, dst, level, tune=tune, tell=tell)
    return _write_within(original, dst, wanted, tell)


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


def _write_within(
    original: Original, dst: str | os.PathLike[str], budget: Budget, tell: Tell
) -> QuantizationReport:
    """Write the best that keeps a budget."""
    budget.hold(original.metric)
    budget = budget.from_reference(original.own_figure)
    with Journal(dst, original) as journal:
        if journal.points:
            tell(f"going on: {len(journal.points)} files were measured before ({journal.path})")
        found = search(original, budget, journal, tell)
        report = _written(original, dst, _Plan(AUTO, found.apply, budget=budget, found=found))
    return report


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


def _written(original: Original, dst: str | os.PathLike[str], plan: _Plan) -> QuantizationReport:
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
        report = _with_search(report, plan, dst)
    return dataclasses.replace(report, notes=(*report.notes, *_advice(report, made)))


def _with_search(
    report: QuantizationReport, plan: _Plan, dst: str | os.PathLike[str]
) -> QuantizationReport:
    """The report with what was searched; of what was chosen, the file itself is what counts.

    Raises:
        QuantizationError: that does not keep the budget.
    """
    found, budget = plan.found, plan.budget
    if found is None or budget is None:
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
            hint=f"Remove {os.fspath(dst)}{SUFFIX}, which tells of that, and run again.",
        )
    front = tuple(chosen if point is found.chosen else point for point in found.front)
    levels = tuple(chosen if point is found.chosen else point for point in found.levels)
    return dataclasses.replace(
        report, chosen=chosen, front=front, levels=levels, reasons=found.reasons
    )


def _refuse_unknown(level: str) -> None:
    names = (*LEVELS, AUTO)
    if level not in names:
        raise InputError(f"there is no level {level!r}", hint=f"Choose one of {', '.join(names)}.")


def _budget(level: str, budget: str | None, tune: bool) -> Budget | None:
    if (level == AUTO) != (budget is not None):
        raise InputError(
            "a budget and the level auto come together",
            hint="Give level auto and a budget such as snr=35, size=200KB or metric=-0.5%, or"
            " neither.",
        )
    if budget is not None and tune:
        raise InputError(
            "the level auto keeps weights small and has nothing to tune",
            hint="Tune one of the levels int8, int8-block or int4.",
        )
    return None if budget is None else Budget.parse(budget)


def _refuse_for_folder(
    calibration: Calibration | None, metric: Function | None, budget: Budget | None
) -> None:
    if calibration is not None or metric is not None:
        raise InputError(
            "an encoder-decoder is measured on random inputs only: its two files take other inputs",
            hint="Leave the calibration data and the metric out. To see what a level costs on your"
            " data, compare the levels for each file by itself.",
        )
    if budget is not None and budget.kind != "snr":
        raise InputError(
            f"the budget {budget} is one file's, and an encoder-decoder has two",
            hint="Give snr=35, which each of them keeps.",
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

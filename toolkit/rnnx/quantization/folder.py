"""Quantizes an encoder-decoder: both files of its folder, under one contract."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rnnx.parity.metric import Metric
from rnnx.quantization.budget import METRIC, Budget
from rnnx.quantization.calibration import Calibration, Feeds
from rnnx.quantization.one_file import Tell, Way, write_smaller
from rnnx.quantization.original import Function, Original, as_metric, open_original
from rnnx.quantization.pair import Pair, read_sources, step_runs, write_contract
from rnnx.quantization.report import INVARIANCE, QuantizationReport
from rnnx_exporters.seq2seq_folder import GREEDY, replacing_folder
from rnnx_runtime.errors import InputError, QuantizationError
from rnnx_runtime.seq2seq import ENCODER, STEP, load_seq2seq_contract

FILES = (ENCODER, STEP)
_WEAKER = list(INVARIANCE)
_Reports = dict[str, QuantizationReport]


@dataclass(frozen=True, slots=True)
class Files:
    """The two files of an encoder-decoder, open.

    Attributes:
        folder: that they stand in.
        originals: each with what it meets, by name.
        sources: what both are measured on together, with labels; empty without calibration data.
        metric: of what both write.
        own_figure: what that gives for them.
    """

    folder: Path
    originals: dict[str, Original]
    sources: list[Feeds]
    metric: Metric | None
    own_figure: float | None = None

    def original(self, name: str, beside: Path) -> Original:
        """One of the files; the step is tried with the encoder that stands in `beside`."""
        original = self.originals[name]
        if self.metric is None:
            return original
        pair = Pair(self.folder, self.sources, name, self.other(name, beside))
        return dataclasses.replace(
            original, metric=self.metric, pair=pair, own_figure=self.own_figure
        )

    def other(self, name: str, beside: Path) -> Path:
        """What the file of this name is tried with."""
        return self.folder / STEP if name == ENCODER else beside / ENCODER


def open_files(
    folder: str | os.PathLike[str],
    *,
    calibration: Calibration | None = None,
    chunk: int | None = None,
    batch: int | None = None,
    metric: Function | None = None,
) -> Files:
    """Open the encoder-decoder in a folder, as `quantize` takes it.

    The encoder is measured on the sources, the step on what it takes while they write of them.

    Args:
        folder: one that `rnnx.export_seq2seq` wrote.
        calibration: sources: `src` with `lengths` (all frames where left out), and labels.
        chunk, batch: as `quantize` takes them.
        metric: is given `ids`, `lengths` and `scores` of what is written of each run of sources.

    Raises:
        ArtifactError: it is no encoder-decoder.
        InputError: the sources do not fit, or the metric has none, raises or gives no number.
        QuantizationError: it is quantized already.
    """
    load_seq2seq_contract(folder)
    if calibration is None and metric is not None:
        raise InputError(
            "the metric has no sources to be measured on",
            hint="Give calibration data: held-out sources, and the labels that the metric reads.",
        )
    sources: list[Feeds] = []
    if calibration is not None:
        sources = read_sources(folder, calibration, has_labels=metric is not None)
    originals = _originals(Path(folder), sources, chunk, batch)
    files = Files(Path(folder), originals, sources, as_metric(metric))
    encoder = files.original(ENCODER, files.folder)
    return dataclasses.replace(files, own_figure=encoder.figure(encoder.runner))


def _originals(
    folder: Path, sources: list[Feeds], chunk: int | None, batch: int | None
) -> dict[str, Original]:
    if not sources:
        return {name: open_original(folder / name, chunk=chunk, batch=batch) for name in FILES}
    inputs = [{name: run[name] for name in ("src", "lengths")} for run in sources]
    rows = batch or len(inputs[0]["src"])
    met = step_runs(folder, inputs)
    return {
        ENCODER: open_original(folder / ENCODER, data=inputs, chunk=chunk, batch=batch),
        STEP: open_original(folder / STEP, data=met, chunk=chunk, batch=rows),
    }


def write_folder(files: Files, dst: str | os.PathLike[str], way: Way) -> QuantizationReport:
    """Write an encoder-decoder to the folder `dst`, each file quantized.

    A budget of a metric is kept by both files together: of what the figure may lose, half is for
    the encoder, and what that leaves for the step. Of a size, each file gets its part.

    Args:
        files: the original.
        dst: a new or empty folder, or one with an earlier export.
        way: how each file becomes smaller. What a search measures is kept beside `dst`.

    Returns:
        One report of both files: outputs as `encoder.m000` and `step.logits`, the weaker
        invariance; chunk, batch, agreement and time are the step's. What level auto measured of
        each is left out, but for bits and reasons.

    Raises:
        ArtifactError: `dst` holds something else.
        InputError: the budget is of another metric, or a journal of another search.
        QuantizationError: nothing would change in one of the files, or nothing keeps the budget.
    """
    if way.budget is not None:
        way.budget.hold(files.metric)
    reports: _Reports = {}
    with ExitStack() as journals, replacing_folder(dst) as beside:
        for name in FILES:
            part = _part(way.budget, name, files, reports)
            own = dataclasses.replace(way, budget=part, tell=_prefixed(way.tell, name))
            kept = f"{os.path.realpath(dst)}.{name}"
            with _telling(name, way.budget):
                original = files.original(name, beside)
                reports[name] = write_smaller(original, beside / name, own, journals, kept=kept)
        write_contract(files.folder, beside)
    report = _together(reports, way.budget)
    if (files.folder / GREEDY).exists():
        note = f"{GREEDY} is not carried over: it holds the weights as they were."
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return report


def _prefixed(tell: Tell, name: str) -> Tell:
    return lambda text: tell(f"{name}: {text}")


def _part(budget: Budget | None, name: str, files: Files, reports: _Reports) -> Budget | None:
    """What one of the files has of the budget."""
    if budget is None or budget.kind == "snr":
        return budget
    if budget.kind == METRIC:
        return dataclasses.replace(budget, amount=budget.amount / (2 if name == ENCODER else 1))
    if name == STEP:
        return dataclasses.replace(budget, amount=budget.amount - reports[ENCODER].output_bytes)
    sizes = {each: original.bytes for each, original in files.originals.items()}
    amount = int(budget.amount * sizes[ENCODER] / sum(sizes.values()))
    return dataclasses.replace(budget, amount=max(amount, 1))


@contextmanager
def _telling(name: str, budget: Budget | None) -> Iterator[None]:
    """Say in errors which file they are about."""
    part = "" if budget is None or budget.kind == "snr" else f", its part of {budget}"
    try:
        yield
    except (InputError, QuantizationError) as error:
        raise type(error)(f"{name}{part}: {error}", hint=error.hint) from error


def _together(reports: _Reports, budget: Budget | None) -> QuantizationReport:
    changed: Counter[str] = Counter()
    snr: dict[str, float] = {}
    for name, report in reports.items():
        changed.update(report.changed)
        snr |= {f"{Path(name).stem}.{port}": value for port, value in report.snr_db.items()}
    return dataclasses.replace(
        reports[STEP],
        source_bytes=sum(report.source_bytes for report in reports.values()),
        output_bytes=sum(report.output_bytes for report in reports.values()),
        changed=dict(sorted(changed.items())),
        snr_db=snr,
        budget=None if budget is None else str(budget),
        bits={
            f"{Path(name).stem}.{part}": count
            for name, report in reports.items()
            for part, count in report.bits.items()
        },
        chosen=None,
        front=(),
        levels=(),
        reasons=tuple(
            f"{Path(name).stem}: {reason}"
            for name, report in reports.items()
            for reason in (*_chosen(report), *report.reasons)
        ),
        invariance=max((report.invariance for report in reports.values()), key=_WEAKER.index),
        notes=tuple(dict.fromkeys(note for one in reports.values() for note in one.notes)),
    )


def _chosen(report: QuantizationReport) -> list[str]:
    """What level auto took of a file."""
    return [] if report.chosen is None else [f"{report.chosen.name} was taken"]

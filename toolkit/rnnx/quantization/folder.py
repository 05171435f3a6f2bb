"""Quantizes an encoder-decoder: both files of its folder, under one contract."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rnnx.quantization.budget import METRIC, Budget
from rnnx.quantization.calibration import Calibration, Feeds
from rnnx.quantization.one_file import Way, write_smaller
from rnnx.quantization.original import Function, Original, open_original
from rnnx.quantization.pair import Pair, read_sources, step_runs, write_contract
from rnnx.quantization.report import INVARIANCE, QuantizationReport
from rnnx_exporters.seq2seq_folder import GREEDY, replacing_folder
from rnnx_runtime.errors import InputError, QuantizationError
from rnnx_runtime.seq2seq import ENCODER, STEP, load_seq2seq_contract

_WEAKER = list(INVARIANCE)
_Reports = dict[str, QuantizationReport]


def quantize_folder(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    way: Way,
    *,
    calibration: Calibration | None,
    chunk: int | None,
    batch: int | None,
    metric: Function | None,
) -> QuantizationReport:
    """Write the encoder-decoder in the folder `src` to the folder `dst`, each file quantized.

    The encoder is measured on the sources, the step on all that it takes while the original writes
    of them. A budget of a metric is kept by both files together: of what the figure may lose, half
    is for the encoder, and what that leaves for the step. Of a size, each file gets its part.

    Args:
        src: a folder that `rnnx.export_seq2seq` wrote.
        dst: a new or empty folder, or one with an earlier export.
        way: how each file becomes smaller. What a search measures is kept beside `dst`.
        calibration: sources: `src` with `lengths` (all frames where left out), and labels.
        chunk, batch: as `quantize` takes them.
        metric: is given `ids`, `lengths` and `scores` of what is written of each run of sources.

    Returns:
        One report of both files: outputs as `encoder.m000` and `step.logits`, the weaker
        invariance; chunk, batch, agreement and time are the step's. What level auto measured of
        each is left out, but for the reasons.

    Raises:
        ArtifactError: `src` is no encoder-decoder, or `dst` holds something else.
        InputError: the sources do not fit, or the metric has none.
        QuantizationError: nothing would change in one of the files, or nothing keeps the budget.
    """
    load_seq2seq_contract(src)
    files = _Files(Path(src), calibration, batch, metric)
    reports: _Reports = {}
    with ExitStack() as journals, replacing_folder(dst) as beside:
        for name in (ENCODER, STEP):
            with _telling(name):
                original, own = files.open(name, beside, chunk), _own(way, name, src, reports)
                kept = f"{Path(dst)}.{name}"
                reports[name] = write_smaller(original, beside / name, own, journals, kept=kept)
        write_contract(src, beside)
    report = _together(reports, way.budget)
    if Path(src, GREEDY).exists():
        note = f"{GREEDY} is not carried over: it holds the weights as they were."
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return report


class _Files:
    """The two files, each with what it meets.

    Args:
        src: their folder.
        calibration: sources.
        batch: sequences that advance together where they are deployed.
        metric: of what both write together.
    """

    def __init__(
        self,
        src: Path,
        calibration: Calibration | None,
        batch: int | None,
        metric: Function | None,
    ) -> None:
        self._src, self._metric = src, metric
        self._sources: list[Feeds] | None = None
        self._met: dict[str, list[Feeds]] = {}
        self._batches = dict.fromkeys((ENCODER, STEP), batch)
        self._figure: float | None = None
        if calibration is not None:
            self._meet(read_sources(src, calibration, has_labels=metric is not None))
        elif metric is not None:
            raise InputError(
                "the metric has no sources to be measured on",
                hint="Give calibration data: held-out sources, and the labels that it reads.",
            )

    def _meet(self, sources: list[Feeds]) -> None:
        inputs = [{name: run[name] for name in ("src", "lengths")} for run in sources]
        self._sources = sources
        self._met = {ENCODER: inputs, STEP: step_runs(self._src, inputs)}
        self._batches[STEP] = self._batches[STEP] or len(inputs[0]["src"])

    def open(self, name: str, beside: Path, chunk: int | None) -> Original:
        """The file of this name; a step is tried with the encoder that stands in `beside`."""
        original = open_original(
            self._src / name,
            calibration=self._met.get(name),
            chunk=chunk,
            batch=self._batches[name],
            metric=self._metric,
            pair=self._pair(name, beside),
        )
        if name == ENCODER:
            self._figure = original.own_figure  # the step's own is that of a smaller encoder
        return dataclasses.replace(original, own_figure=self._figure)

    def _pair(self, name: str, beside: Path) -> Pair | None:
        if self._metric is None or self._sources is None:
            return None
        other = self._src / STEP if name == ENCODER else beside / ENCODER
        return Pair(self._src, self._sources, name, other)


def _own(way: Way, name: str, src: str | os.PathLike[str], reports: _Reports) -> Way:
    """How one of the files becomes smaller: with its part of the budget."""
    budget = way.budget
    if budget is not None and budget.kind == METRIC and name == ENCODER:
        budget = dataclasses.replace(budget, amount=budget.amount / 2)
    elif budget is not None and budget.kind == "size":
        sizes = {file: Path(src, file).stat().st_size for file in (ENCODER, STEP)}
        part = int(budget.amount * sizes[ENCODER] / sum(sizes.values()))
        taken = reports[ENCODER].output_bytes if name == STEP else budget.amount - part
        budget = dataclasses.replace(budget, amount=budget.amount - taken)
    return dataclasses.replace(way, budget=budget, tell=lambda text: way.tell(f"{name}: {text}"))


@contextmanager
def _telling(name: str) -> Iterator[None]:
    """Say in errors which file they are about."""
    try:
        yield
    except (InputError, QuantizationError) as error:
        raise type(error)(f"{name}: {error}", hint=error.hint) from error


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
        bits={},
        chosen=None,
        front=(),
        levels=(),
        reasons=tuple(
            f"{Path(name).stem}: {reason}"
            for name, report in reports.items()
            for reason in report.reasons
        ),
        invariance=max((report.invariance for report in reports.values()), key=_WEAKER.index),
        notes=tuple(dict.fromkeys(note for one in reports.values() for note in one.notes)),
    )

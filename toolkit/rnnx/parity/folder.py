"""Holds an encoder-decoder against another: both files of its folder, as one report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rnnx.parity.report import Report
from rnnx_runtime.seq2seq import ENCODER, STEP, Seq2Seq


def check_folder(
    check_file: Callable[[Path, Path], Report],
    folder: str | os.PathLike[str],
    against: str | os.PathLike[str],
) -> Report:
    """The findings of both files, their outputs told as `encoder.m000` and `step.logits`.

    Args:
        check_file: holds one file against another.
        folder, against: folders that `rnnx.export_seq2seq` wrote.

    Raises:
        ArtifactError: one of them is no encoder-decoder.
        InputError: the two do not fit each other.
    """
    for one in (folder, against):
        Seq2Seq(one)
    reports = {
        name: check_file(Path(folder, name), Path(against, name)) for name in (ENCODER, STEP)
    }
    findings = tuple(
        replace(finding, output=f"{Path(name).stem}.{finding.output}")
        for name, report in reports.items()
        for finding in report.findings
    )
    notes = dict.fromkeys(note for report in reports.values() for note in report.notes)
    return replace(reports[STEP], artifact=os.fspath(folder), findings=findings, notes=tuple(notes))

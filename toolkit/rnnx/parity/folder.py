"""Holds an encoder-decoder against another: both files of its folder, as one report."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rnnx.parity.report import Finding, Report
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
    parts = [_named(Path(name).stem, report) for name, report in reports.items()]
    return replace(
        parts[-1],
        artifact=os.fspath(folder),
        findings=tuple(finding for part in parts for finding in part.findings),
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        skipped={name: why for part in parts for name, why in part.skipped.items()},
        artifact_sha256=" ".join(part.artifact_sha256 for part in parts),
        evidence=tuple(evidence for part in parts for evidence in part.evidence),
    )


def _named(stem: str, report: Report) -> Report:
    """The report of one file, in which everything bears the file's name."""

    def named(finding: Finding) -> Finding:
        return replace(finding, output=f"{stem}.{finding.output}")

    return replace(
        report,
        findings=tuple(map(named, report.findings)),
        skipped={f"{stem}.{probe}": why for probe, why in report.skipped.items()},
        evidence=tuple(replace(e, finding=named(e.finding)) for e in report.evidence),
    )

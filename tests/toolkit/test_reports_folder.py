"""The report of an encoder-decoder: both files' findings, and whose each is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reported import failure, finding, report
from rnnx import Report
from rnnx.parity import folder
from rnnx.parity.evidence import Span, gather


def report_of(path: Path, against: Path) -> Report:
    """One output with evidence and a state that fails, told of either file."""
    assert path.name == against.name
    value = np.ones((1, 2, 1))
    found = finding(index=(0, 1, 0), time_step=1)
    kept = gather(found, Span(value, value, value, value, 0, 1))
    assert kept is not None
    skipped = {"chunked": f"{path.stem} takes whole sequences"}
    notes = ("held against another artifact",)
    held = report(found, failure(output="s000"), evidence=(kept,), notes=notes, skipped=skipped)
    return replace(held, artifact=str(path), artifact_sha256=path.stem)


def test_every_name_tells_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "Seq2Seq", lambda path: None)  # the files are told of, not opened
    held = folder.check_folder(report_of, "model", "other")
    names = ["encoder.y", "encoder.s000", "step.y", "step.s000"]
    assert held.artifact == "model"
    assert [found.output for found in held.findings] == names
    assert [kept.finding.output for kept in held.evidence] == ["encoder.y", "step.y"]
    assert held.notes == ("held against another artifact",)
    assert held.artifact_sha256 == "encoder step"
    assert held.skipped == {
        "encoder.chunked": "encoder takes whole sequences",
        "step.chunked": "step takes whole sequences",
    }

"""The report for a program: every finding, and what is needed to have it again."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from rnnx.parity.report import SCHEMA_VERSION, Finding, Report


def render(report: Report) -> str:
    """The report as JSON; infinite figures as null."""
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "artifact": report.artifact,
        "artifact_sha256": report.artifact_sha256,
        "passed": report.passed,
        "worst": None if report.worst is None else _record(report.worst),
        "findings": [_record(finding) for finding in report.findings],
        "seed": report.seed,
        "versions": report.versions,
        "machine": dict(report.machine),
        "notes": list(report.notes),
        "skipped": dict(report.skipped),
    }
    if report.location is not None:
        record["location"] = report.location.to_record()
    return json.dumps(record, indent=2)


def _record(finding: Finding) -> dict[str, Any]:
    record = dataclasses.asdict(finding)
    # JSON has no infinity.
    infinite = {name for name, value in record.items() if value in (math.inf, -math.inf)}
    return record | dict.fromkeys(infinite)

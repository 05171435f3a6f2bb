"""The report for a program: every finding, and what is needed to have it again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rnnx.parity.report import SCHEMA_VERSION, Report


def render(report: Report) -> str:
    """The report as JSON; infinite figures as null."""
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "artifact": report.artifact,
        "artifact_sha256": report.artifact_sha256,
        "passed": report.passed,
        "worst": None if report.worst is None else asdict(report.worst),
        "findings": [asdict(finding) for finding in report.findings],
        "seed": report.seed,
        "versions": report.versions,
        "machine": report.machine,
        "notes": report.notes,
        "skipped": report.skipped,
    }
    if report.location is not None:
        record["location"] = report.location.to_record()
    return json.dumps(_finite(record), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    """The same data with None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {name: _finite(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

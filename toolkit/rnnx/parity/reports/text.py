"""The report for a person at a terminal."""

from __future__ import annotations

from rnnx import table
from rnnx.parity.report import Report
from rnnx.parity.reports import columns


def render(report: Report) -> str:
    """The table, what was skipped and noted, and the verdict as the last line."""
    lines = [table.render(*columns.table(report)), ""]
    lines += [] if report.location is None else [report.location.to_text(), ""]
    lines += [f"skipped {probe}: {reason}" for probe, reason in report.skipped.items()]
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join([*lines, report.verdict])

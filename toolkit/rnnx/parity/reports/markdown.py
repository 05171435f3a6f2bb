"""The report as Markdown, for a step summary or a comment."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rnnx.parity.report import Report
from rnnx.parity.reports import columns

_MOST_BYTES = 1_000_000  # GitHub drops a summary of more than 1 MiB
_LONGEST_CELL = 300
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$@])")


def render(report: Report) -> str:
    """The verdict, the table with failures first, and how to have it again."""
    header, rows = columns.table(report)
    rows.sort(key=lambda row: row[header.index("verdict")] == "ok")
    head = [
        f"### rnnx check: {_cell(report.verdict)}",
        "",
        _row(header),
        "|---" * len(header) + "|",
    ]
    lines = [*head, *_that_fit([_row(row) for row in rows]), ""]
    if report.location is not None:
        lines += [f"    {line}" for line in report.location.to_text().splitlines()] + [""]
    return "\n".join([*lines, *_tail(report)])


def _that_fit(lines: Sequence[str]) -> list[str]:
    """The lines, up to the largest size, and how many more there are."""
    size, kept = 0, 0
    for line in lines:
        size += len(line.encode()) + 1
        kept += size <= _MOST_BYTES
    left = len(lines) - kept
    return [*lines[:kept], *(["", f"{left} more rows are in the JSON report."] if left else [])]


def _tail(report: Report) -> list[str]:
    lines = [f"- skipped {_cell(f'{name}: {why}')}" for name, why in report.skipped.items()]
    lines += [f"- note: {_cell(note)}" for note in report.notes]
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines.append(f"- {_cell(report.artifact)}, seed {report.seed}, {_cell(versions)}")
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Text that stays text: in one line, nothing in it means anything."""
    short = text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"
    return _SPECIAL.sub(r"\\\1", " ".join(short.split()))

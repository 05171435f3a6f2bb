"""The table of a report: a row for each probe and output, told by its worst run."""

from __future__ import annotations

from collections.abc import Callable

from rnnx.parity.report import Group, Report

Cell = Callable[[Group], str]


def table(report: Report) -> tuple[list[str], list[list[str]]]:
    """The header and the rows; what no finding knows has no column."""
    columns: dict[str, Cell] = {
        "output": lambda group: group.worst.output,
        "probe": lambda group: group.worst.probe,
        "runs": lambda group: str(len(group.findings)),
        "max |d|": lambda group: f"{group.worst.max_abs:.1e}",
        "required atol": lambda group: f"{group.worst.required_atol:.1e}",
    }
    if any(finding.floor_ratio is not None for finding in report.findings):
        columns["x floor"] = lambda group: number(group.worst.floor_ratio, ".3g")
    if any(finding.min_snr_db is not None for finding in report.findings):
        columns["SNR dB"] = lambda group: number(group.worst.snr_db, ".1f")
        columns["agreement"] = lambda group: number(group.worst.agreement, ".2%")
    columns["verdict"] = lambda group: "ok" if group.passed else "FAILED"
    columns["worst at"] = lambda group: f"{group.worst.where} ({group.worst.run_text})"
    rows = [[cell(group) for cell in columns.values()] for group in report.groups]
    return list(columns), rows


def number(value: float | None, form: str) -> str:
    """The value in a format; nothing where there is none."""
    return "" if value is None else format(value, form)


def told(value: object) -> str:
    """A fact about the machine in a line."""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

"""The report as one HTML file that needs nothing besides, with pictures of what is worst."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from rnnx.parity.evidence import Evidence
from rnnx.parity.report import Report
from rnnx.parity.reports import columns
from rnnx.parity.reports.pictures import draw

_MOST_PICTURES = 12
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.4em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; font-size: 13px; }
th, td { text-align: left; padding: 2px 12px 2px 0; border-bottom: 1px solid #ddd; }
td { font-variant-numeric: tabular-nums; }
.failed, .failed td { color: #b00020; }
pre { font-size: 13px; overflow-x: auto; }
figure { margin: 1em 0 2.5em; } figure svg { width: 100%; height: auto; }
figcaption, .small { font-size: 13px; color: #555; }
"""
_HOW_TO_READ = """
Each picture is the worst comparison of one output or state: the sequence its worst element is in.
<b>Left</b>: how far the artifact is from the reference (the model in float64, or another run or
artifact), frame by frame, at the element nearest to its limit, and what torch's own float32 is
off. A right artifact runs beside the latter; a fault goes over the limit at the frame where it
begins. A step at a grey line, where one chunk ends, is a state that is not carried on.
<b>Middle</b>: the same against magnitude. Points that rise with magnitude are a relative fault, a
weight or a scale; points at one height a constant one, such as a bias. <b>Right</b>: how many
times its limit each value is off, over time. A row that is red throughout is one unit, a block of
rows a gate or a layer, a column a moment, and red that grows to the right an error that the
recurrence feeds. NaN and infinity are red there, and not in the lines.
"""


def render(report: Report) -> str:
    """The report as an HTML document."""
    verdict = "" if report.passed else ' class="failed"'
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f"<title>rnnx check {escape(report.artifact)}</title>\n<style>{_STYLE}</style>",
        f"</head>\n<body>\n<h1>rnnx check {escape(report.artifact)}</h1>",
        f"<p{verdict}>{escape(report.verdict)}</p>",
        _table(*columns.table(report)),
        _location(report),
        _list("Skipped", [f"{probe}: {reason}" for probe, reason in report.skipped.items()]),
        _list("Notes", report.notes),
        *_pictures(report.evidence),
        _facts(report),
        "</body>\n</html>",
    ]
    return "\n".join(part for part in parts if part)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [_row("th", header, "")]
    lines += [_row("td", row, ' class="failed"' if "FAILED" in row else "") for row in rows]
    return "\n".join(["<table>", *lines, "</table>"])


def _row(tag: str, cells: Iterable[str], attributes: str) -> str:
    inside = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
    return f"<tr{attributes}>{inside}</tr>"


def _location(report: Report) -> str:
    if report.location is None:
        return ""
    return f"<h2>Where it leaves the model</h2>\n<pre>{escape(report.location.to_text())}</pre>"


def _list(title: str, entries: Sequence[str]) -> str:
    if not entries:
        return ""
    inside = "".join(f"<li>{escape(entry)}</li>" for entry in entries)
    return f"<h2>{title}</h2>\n<ul>{inside}</ul>"


def _pictures(evidence: Sequence[Evidence]) -> list[str]:
    if not evidence:
        return []
    worst = sorted(evidence, key=lambda kept: kept.finding.severity, reverse=True)
    left = len(worst) - _MOST_PICTURES
    more = [f"<p>{left} more outputs are nearer to the reference.</p>"] if left > 0 else []
    figures = [_figure(kept) for kept in worst[:_MOST_PICTURES]]
    return ["<h2>Pictures</h2>", f'<p class="small">{_HOW_TO_READ}</p>', *figures, *more]


def _figure(evidence: Evidence) -> str:
    finding = evidence.finding
    frames, width = evidence.size
    shown = [f"{finding.probe}: {finding.run_text}, sequence {evidence.sequence}"]
    if len(evidence.steps) < frames:
        shown.append(f"{len(evidence.steps)} of {frames} frames, of each stretch the worst")
    if len(evidence.values) < width:
        shown.append(f"the {len(evidence.values)} of {width} values that are farthest off")
    if finding.min_snr_db is not None:
        limit = f"the limit is an error {finding.min_snr_db:g} dB under the output"
        shown.append(f"{limit}, were it the same everywhere")
    shown.append(f"worst at {finding.where}")
    failed = "" if finding.passed else ' class="failed"'
    title = f"<h3{failed}>{escape(finding.output)}</h3>"
    caption = f"<figcaption>{escape('; '.join(shown))}</figcaption>"
    return f"<figure>{title}\n{draw(evidence)}\n{caption}</figure>"


def _facts(report: Report) -> str:
    facts = {"artifact": report.artifact, "sha256": report.artifact_sha256}
    facts |= {"seed": str(report.seed), **report.versions}
    facts |= {name.replace("_", " "): columns.told(value) for name, value in report.machine.items()}
    return "<h2>What ran</h2>\n" + _table(["", ""], [[name, text] for name, text in facts.items()])

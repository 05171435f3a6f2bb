"""The report as GitHub's workflow commands: what a log line must say to become an annotation."""

from __future__ import annotations

from rnnx.parity.report import Finding, Report

_MOST = 10  # annotations of a kind that GitHub shows of a step


def render(report: Report) -> str:
    """An `::error` line for each of the worst outputs, or one `::notice` where all is equal."""
    if report.passed:
        return f"::notice title=rnnx check::{_data(report.verdict)}"
    if not report.findings:
        return f"::error title=rnnx check::{_data(report.verdict)}"
    failed = [group.worst for group in report.groups if not group.passed]
    failed.sort(key=lambda finding: finding.severity, reverse=True)
    lines = [_error(report.artifact, finding) for finding in failed[:_MOST]]
    if report.location is not None:
        lines.append(f"::notice title=rnnx check::{_data(report.location.sentence)}")
    if len(failed) > _MOST:
        lines.append(f"::notice title=rnnx check::{len(failed) - _MOST} more are not equal")
    return "\n".join(lines)


def _error(artifact: str, finding: Finding) -> str:
    title = f"{artifact}: {finding.output} is not equal ({finding.probe})"
    message = f"{finding.where} ({finding.run_text}), required atol {finding.required_atol:.1e}"
    if finding.min_snr_db is not None and finding.snr_db is not None:
        message = f"SNR {finding.snr_db:.1f} dB of {finding.min_snr_db:g} dB ({finding.run_text})"
    return f"::error title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")

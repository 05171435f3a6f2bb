"""The report as JUnit XML: a suite for each probe, a case for each output.

The oldest schemas in use allow properties in a suite only, so the metrics of a case are its
suite's, under the output's name; for readers that show a case alone they are its output as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from rnnx.parity.report import Finding, Group, Report
from rnnx.parity.reports.columns import told

Pairs = Iterable[tuple[str, str]]

_METRICS = (
    *("max_abs", "required_atol", "rtol", "atol", "noise_floor", "floor_ratio"),
    *("snr_db", "min_snr_db", "agreement", "min_agreement"),
)
# XML 1.0 has no way to write the others.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: Report) -> str:
    """The report as an XML document, without times: a check has none to compare."""
    root = Element("testsuites", name="rnnx check")
    for probe in dict.fromkeys(finding.probe for finding in report.findings):
        groups = [group for group in report.groups if group.worst.probe == probe]
        suite = _suite(root, report, probe, _metrics_of_all(groups))
        for group in groups:
            _case(suite, group)
    for probe, reason in report.skipped.items():
        suite = _suite(root, report, probe)
        SubElement(_named_case(suite, probe), "skipped", message=_xml(reason))
    if not report.findings:
        suite = _suite(root, report, "nothing")
        SubElement(_named_case(suite, "nothing"), "failure", message=report.verdict)
    _count(root)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode")


def _suite(root: Element, report: Report, probe: str, metrics: Pairs = ()) -> Element:
    name = f"{Path(report.artifact).name}.{probe}"
    suite = SubElement(root, "testsuite", name=_xml(name))
    properties = SubElement(suite, "properties")
    for key, value in (*_facts(report), *metrics):
        SubElement(properties, "property", name=_xml(key), value=_xml(value))
    return suite


def _named_case(suite: Element, name: str) -> Element:
    return SubElement(suite, "testcase", classname=suite.attrib["name"], name=_xml(name))


def _case(suite: Element, group: Group) -> None:
    case = _named_case(suite, group.worst.output)
    if not group.passed:
        message = f"{group.worst.where} ({group.worst.run_text})"
        failure = SubElement(case, "failure", type="NotEqual", message=_xml(message))
        failure.text = _xml("\n".join(_line(f) for f in group.findings if not f.passed))
    text = "\n".join(f"{name} {value}" for name, value in _metrics(group.worst))
    SubElement(case, "system-out").text = _xml(text)


def _line(finding: Finding) -> str:
    needed = f"max |d| {finding.max_abs:.1e}, required atol {finding.required_atol:.1e}"
    if finding.min_snr_db is not None and finding.snr_db is not None:
        needed = f"SNR {finding.snr_db:.1f} dB of {finding.min_snr_db:g} dB"
    return f"{finding.run_text}: {finding.where}; {needed}"


def _facts(report: Report) -> list[tuple[str, str]]:
    facts = {"artifact": report.artifact, "artifact_sha256": report.artifact_sha256}
    facts |= {"seed": str(report.seed), "verdict": report.verdict}
    facts |= {f"version.{name}": value for name, value in report.versions.items()}
    facts |= {f"machine.{name}": told(value) for name, value in report.machine.items()}
    if report.location is not None:
        facts["location"] = report.location.sentence
    notes = [("note", note) for note in report.notes]
    return [*facts.items(), *notes]


def _metrics(finding: Finding) -> list[tuple[str, str]]:
    values = {name: getattr(finding, name) for name in _METRICS}
    return [(name, f"{value:.6g}") for name, value in values.items() if value is not None]


def _metrics_of_all(groups: Iterable[Group]) -> list[tuple[str, str]]:
    return [
        (f"{group.worst.output}.{name}", value)
        for group in groups
        for name, value in _metrics(group.worst)
    ]


def _count(root: Element) -> None:
    for element in (root, *root.iter("testsuite")):
        element.set("tests", str(len(list(element.iter("testcase")))))
        element.set("failures", str(len(list(element.iter("failure")))))
        element.set("errors", "0")
    for suite in root.iter("testsuite"):  # the root has no such attribute
        suite.set("skipped", str(len(list(suite.iter("skipped")))))


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)

"""Every format of a report says what the report says, whatever is in it."""

from __future__ import annotations

import html
import json
import math
import re
from collections import Counter
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given

from reported import MACHINE, failure, finding, location, report, reports
from rnnx import InputError, Report
from rnnx.parity.reports import KINDS

# --- text


def test_the_table_tells_the_noise_floor() -> None:
    text = report(finding(floor_ratio=1.234), finding("chunked", floor_ratio=8e6)).to_text()
    assert "x floor" in text.splitlines()[0]
    assert [line.split()[5] for line in text.splitlines()[2:4]] == ["1.23", "8e+06"]


def test_quality_is_told_where_it_decides() -> None:
    plain = report(finding(snr_db=140.0, agreement=1.0)).to_text()
    assert "SNR" not in plain
    held = report(finding(snr_db=41.25, agreement=0.995, min_snr_db=30.0)).to_text()
    assert "41.2" in held
    assert "99.50%" in held
    assert held.splitlines()[-1] == "equal: 1 comparisons at 30 dB; SNR 41.2 dB (y, equal)"


def test_the_worst_is_a_failure_even_where_others_are_farther_off() -> None:
    loose = finding(output="a", atol=1.0, required_atol=0.9, max_abs=0.9)
    tight = failure(output="b", atol=1e-5, required_atol=1e-4, max_abs=1e-4)
    quiet = failure(output="c", min_snr_db=30.0, snr_db=29.0, required_atol=1e-9)
    assert report(loose, tight).worst == tight
    assert report(loose, quiet).worst == quiet
    assert report(loose, tight, quiet).worst == quiet  # an error of 29 dB is larger than 1e-4
    assert report(loose, tight, quiet).to_text().splitlines()[-1].startswith("NOT EQUAL: 3")


def test_what_was_skipped_stands_with_its_reason() -> None:
    lines = report(finding(), skipped={"ragged": "no lengths"}, notes=("old",)).to_text()
    assert lines.splitlines()[-3:-1] == ["skipped ragged: no lengths", "note: old"]


def test_no_comparison_is_a_failure_in_every_format() -> None:
    empty = report(skipped={"chunked": "the artifact takes whole sequences"})
    assert not empty.passed
    assert empty.worst is None
    assert empty.to_text().splitlines()[-1] == "NOT EQUAL: nothing was compared"
    assert json.loads(empty.to_json())["worst"] is None
    root = ElementTree.fromstring(empty.render("junit"))
    assert (root.get("failures"), root.get("tests")) == ("1", "2")
    assert empty.render("github") == "::error title=rnnx check::NOT EQUAL: nothing was compared"
    assert "nothing was compared" in empty.render("markdown")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="no report of the kind 'yaml'") as raised:
        report(finding()).render("yaml")
    assert "junit" in str(raised.value.hint)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_tells_the_block_at_fault(kind: str) -> None:
    found = report(failure(), location=location())
    sentence = "rnn.l0 (module 'rnn', layer 0) is the first block out of tolerance, at time step 3"
    assert sentence in html.unescape(found.render(kind))
    assert "first block" not in html.unescape(report(failure()).render(kind))


# --- JSON


@given(reports)
def test_json_holds_every_finding(given: Report) -> None:
    record = json.loads(given.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert record["passed"] is given.passed
    assert len(record["findings"]) == len(given.findings)
    for told, found in zip(record["findings"], given.findings, strict=True):
        assert told["max_abs"] == (None if math.isinf(found.max_abs) else found.max_abs)
        assert (told["reason"], told["run"]) == (found.reason, found.run)
    assert record["machine"] == MACHINE
    assert "evidence" not in record


# --- JUnit

# What the strictest of the schemas in use (Jenkins') allows; pytest and Maven write more.
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"skipped", "failure", "system-out"},
}
REQUIRED = {
    "testsuite": {"name", "tests", "failures", "errors"},
    "testcase": {"name"},
    "property": {"name", "value"},
}
ALLOWED = {
    "testsuites": {"name", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped"},
    "testcase": {"name", "classname"},
    "property": {"name", "value"},
    "failure": {"type", "message"},
    "skipped": {"message"},
}


def assert_is_junit(root: Element) -> None:
    assert root.tag == "testsuites"
    for element in root.iter():
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
        assert REQUIRED.get(element.tag, set()) <= set(element.attrib)
        assert set(element.attrib) <= ALLOWED.get(element.tag, set())
    for element in (root, *root.iter("testsuite")):
        for kind, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            assert int(element.attrib[kind]) == len(list(element.iter(tag)))


@given(reports)
def test_junit_is_valid_and_counts_what_failed(given: Report) -> None:
    root = ElementTree.fromstring(given.render("junit"))
    assert_is_junit(root)
    failed = sum(not group.passed for group in given.groups)
    assert int(root.attrib["failures"]) == failed + (not given.findings)
    assert len(list(root.iter("skipped"))) == len(given.skipped)
    held = len(given.groups) + len(given.skipped) + (not given.findings)
    assert int(root.attrib["tests"]) == held


def test_junit_names_probe_output_and_place() -> None:
    fails = failure("chunked", run={"batch": 1, "chunk": 7})
    again = failure("chunked", run={"batch": 1, "chunk": 17}, required_atol=0.1)
    root = ElementTree.fromstring(report(finding(), fails, again).render("junit"))
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    assert cases.keys() == {("m.onnx.sequence", "y"), ("m.onnx.chunked", "y")}
    assert cases["m.onnx.sequence", "y"].find("failure") is None
    told = cases["m.onnx.chunked", "y"].find("failure")
    assert told is not None
    assert told.get("message") == "time step 7, index [1, 7, 2] (batch 1, chunk 7)"
    assert "chunk 17" in str(told.text)
    assert "required atol 4.0e-01" in str(told.text)


def test_junit_has_the_metrics_as_properties() -> None:
    root = ElementTree.fromstring(report(finding(floor_ratio=1.5), finding("loud")).render("junit"))
    suite = root.find("testsuite")
    assert suite is not None
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["y.max_abs"] == "1e-08"
    assert properties["y.floor_ratio"] == "1.5"
    assert "y.snr_db" not in properties
    assert properties["machine.features"] == "avx2 fma"
    assert properties["version.torch"] == "2.13.0"


# --- Markdown


def unescaped_cells(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)(?:\\\\)*\|", line.strip())[1:-1]
    return [re.sub(r"\\(.)", r"\1", cell).strip() for cell in cells]


@given(reports)
def test_markdown_is_a_table_of_as_many_cells_in_each_row(given: Report) -> None:
    lines = [line for line in given.render("markdown").split("\n") if line.startswith("|")]
    assert len(lines) == 2 + len(given.groups)
    assert len({len(unescaped_cells(line)) for line in lines}) == 1
    failed = sum(not group.passed for group in given.groups)
    verdicts = ["FAILED" in unescaped_cells(line) for line in lines[2:]]
    assert verdicts[:failed] == [True] * failed


def test_markdown_means_nothing_but_its_text() -> None:
    text = report(finding(output="<b>|`y`|</b>\n# no [x](http://a)")).render("markdown")
    row = text.split("\n")[4]
    assert unescaped_cells(row)[0] == "<b>|`y`|</b> # no [x](http://a)"
    assert not re.search(r"(?<!\\)[<>`\[#]", row)


def test_markdown_fits_a_step_summary() -> None:
    many = [finding(output=f"y{number}", reason="~" * 250) for number in range(3000)]
    text = report(*many, failure(output="wrong")).render("markdown")
    assert len(text.encode()) < 1 << 20
    assert "wrong" in text.split("\n")[4]
    kept = text.count("\n| y")
    assert f"{3000 - kept} more rows are in the JSON report." in text


# --- GitHub

COMMAND = re.compile(r"::(error|notice) title=([^:,]*)::([^\n\r]*)")
CODES = {"%25": "%", "%0A": "\n", "%0D": "\r", "%3A": ":", "%2C": ","}


def decoded(text: str) -> str:
    return re.sub("%25|%0A|%0D|%3A|%2C", lambda code: CODES[code[0]], text)


@given(reports)
def test_github_gets_lines_it_can_read(given: Report) -> None:
    commands = [COMMAND.fullmatch(line) for line in given.render("github").split("\n")]
    assert all(commands)
    kinds = Counter(command[1] for command in commands if command)
    assert kinds["error"] <= 10
    assert (kinds["error"] > 0) is (not given.passed)


def test_github_shows_the_ten_worst() -> None:
    fails = [failure(output=f"y{number}", required_atol=float(number)) for number in range(1, 15)]
    lines = report(*fails, finding()).render("github").split("\n")
    titles = [decoded(command[2]) for line in lines[:10] if (command := COMMAND.fullmatch(line))]
    assert titles[0] == "m.onnx: y14 is not equal (sequence)"
    assert titles[9] == "m.onnx: y5 is not equal (sequence)"
    assert lines[10:] == ["::notice title=rnnx check::4 more are not equal"]


def test_github_text_comes_out_as_it_went_in() -> None:
    odd = failure(output="a:b,c%\n", reason="50%\r\n::error::off", index=None)
    command = COMMAND.fullmatch(report(odd).render("github"))
    assert command is not None
    assert decoded(command[2]) == "m.onnx: a:b,c%\n is not equal (sequence)"
    assert decoded(command[3]).startswith("50%\r\n::error::off (batch 2, frames 16)")


def test_github_tells_that_all_is_equal() -> None:
    assert report(finding()).render("github").startswith("::notice title=rnnx check::equal: 1")

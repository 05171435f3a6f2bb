"""`rnnx check --report KIND:FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

import faults
from command_line import Ended, assert_refused, listing, run
from faults import plant
from rnnx.parity.probes import sequence
from rnnx.parity.reports import KINDS

Capture = pytest.CaptureFixture[str]
NET = 'from networks import NETWORKS\n\n\ndef gru():\n    return NETWORKS["gru"]()\n'


@pytest.fixture(autouse=True)
def artifact(
    workplace: Path, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`m.onnx`, `off.onnx` that is not equal, and `net.py:gru`; one probe, which is quick."""
    (workplace / "net.py").write_text(NET)
    path = workplace / "m.onnx"
    path.write_bytes(exported("gru", streaming=False).read_bytes())
    plant(path, workplace / "off.onnx", faults.scaled("y", 1.01))
    monkeypatch.setattr(sys.modules["rnnx.parity.check"], "PROBES", {"sequence": sequence})


def check(capsys: Capture, *arguments: str, artifact: str = "m.onnx") -> Ended:
    return run(capsys, "check", artifact, "--against", "net.py:gru", *arguments)


def test_every_kind_is_written_at_once(capsys: Capture, workplace: Path) -> None:
    options = [part for kind in KINDS for part in ("--report", f"{kind}:{kind}.out")]
    before = set(listing(workplace))
    ended = check(capsys, *options, artifact="off.onnx")
    assert ended.code == 1
    assert set(listing(workplace)) - before == {f"{kind}.out" for kind in KINDS}
    texts = {kind: (workplace / f"{kind}.out").read_text() for kind in KINDS}
    assert texts["text"] == ended.out  # which is on stdout besides
    assert json.loads(texts["json"])["passed"] is False
    assert ElementTree.fromstring(texts["junit"]).get("failures") == "1"
    assert texts["markdown"].startswith("### rnnx check: NOT EQUAL")
    assert texts["github"].startswith("::error title=off.onnx%3A y is not equal")
    assert texts["html"].startswith("<!DOCTYPE html>")
    assert texts["html"].count("<svg") == 1


def test_a_report_on_stdout_takes_the_place_of_the_table(capsys: Capture) -> None:
    ended = check(capsys, "--report", "markdown:-", "--report", "github:-")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].startswith("### rnnx check: equal")
    assert lines[-1].startswith("::notice")
    assert not Path("-").exists()


def test_json_and_a_file_go_together(capsys: Capture, workplace: Path) -> None:
    ended = check(capsys, "--json", "--report", "json:same.json")
    assert (workplace / "same.json").read_text() == ended.out
    assert json.loads(ended.out)["passed"] is True


def test_a_file_is_replaced(capsys: Capture, workplace: Path) -> None:
    target = workplace / "parity.xml"
    target.write_text("old" * 10_000)
    assert check(capsys, "--report", "junit:parity.xml").code == 0
    ElementTree.fromstring(target.read_text())


REFUSED = [
    (["yaml:a.yaml"], "there is no report of the kind 'yaml'"),
    (["a.xml"], "there is no report of the kind 'a.xml'"),
    (["junit"], "'junit' does not say where the report goes"),
    (["junit:"], "'junit:' does not say where the report goes"),
    (["json:ok.json", "junit:gone/a.xml"], "no folder 'gone' to write 'a.xml' in"),
    (["json:a", "text:-", "text:a"], "two reports go to 'a'"),
    (["junit:."], "is a folder, not a file to write"),
    (["html:./m.onnx"], "would overwrite 'm.onnx'"),
    (["text:net.py"], "would overwrite 'net.py'"),
    (["junit:/proc/a.xml"], "no report can be written at '/proc/a.xml'"),
]


@pytest.mark.parametrize(("reports", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_what_cannot_be_written_is_refused_before_the_check(
    capsys: Capture, workplace: Path, reports: list[str], says: str
) -> None:
    before = listing(workplace)
    ended = check(capsys, *(part for text in reports for part in ("--report", text)))
    assert_refused(ended, says)
    assert "checking" not in ended.err
    assert "hint: " in ended.err or "folder" in says
    assert listing(workplace) == before


def test_html_without_matplotlib_is_refused_before_the_check(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = check(capsys, "--report", "html:a.html")
    assert_refused(ended, "an HTML report needs the package 'matplotlib'")
    assert "hint: pip install 'rnnx[report]'" in ended.err
    assert "checking" not in ended.err


def test_a_report_that_cannot_be_made_leaves_nothing(
    capsys: Capture, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rnnx.parity.reports import junit

    def broken(report: object) -> str:
        raise OSError(28, "No space left on device", "parity.xml")

    monkeypatch.setattr(junit, "render", broken)
    (workplace / "parity.xml").write_text("old")
    before = listing(workplace)
    ended = check(capsys, "--report", "junit:parity.xml")
    assert_refused(ended, "No space left on device")
    assert listing(workplace) == before

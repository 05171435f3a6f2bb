"""`rnnx.check` of one artifact against another: equal ones pass, faults are found, no torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import faults
import rnnx
from artifacts import gru_artifact
from faults import Fault, edit_contract, plant
from rnnx import ArtifactError, InputError
from rnnx.parity.onnx_reference import OnnxReference

Exported = Callable[..., Path]


def held(report: rnnx.Report) -> set[tuple[str, str]]:
    return {(finding.probe, finding.output) for finding in report.findings}


@pytest.mark.parametrize("name", ["lstm", "tokens", "explicit-gru"])
def test_a_stream_equals_its_offline_artifact(exported: Exported, name: str) -> None:
    offline, streaming = (exported(name, streaming=way) for way in (False, True))
    report = rnnx.check(streaming, offline, probes=["sequence", "chunked"])
    assert report.passed, report.to_text()
    names = {port.name for port in rnnx.load_contract(streaming).outputs}
    assert held(report) == {(probe, y) for probe in ("sequence", "chunked") for y in names}


def test_the_other_way_round(exported: Exported) -> None:
    offline, streaming = (exported("lstm", streaming=way) for way in (False, True))
    report = rnnx.check(offline, streaming, probes=["sequence"])
    assert report.passed
    assert held(report) == {("sequence", "y")}


def test_streams_with_the_same_states_are_held_by_their_states_too(exported: Exported) -> None:
    path = exported("lstm", streaming=True)
    report = rnnx.check(path, path)
    assert report.passed
    states = {f"s{number:03d}" for number in range(4)}
    assert {finding.output for finding in report.findings if finding.probe == "sequence"} == {
        "y",
        *states,
    }
    assert all(finding.max_abs == 0 for finding in report.findings if finding.probe == "sequence")


FAULTS: dict[str, tuple[Fault, set[str]]] = {
    "gates rolled": (faults.roll_gates(1), {"y", "s002", "s003"}),
    "h0 ignored": (faults.no_input(1, 5), {"y", "s002", "s003"}),
    "state scaled": (faults.scaled("s003_out", 1.001), {"s003"}),
    "output scaled": (faults.scaled("y", 1.001), {"y"}),
    "output transposed": (faults.after("y", ("Transpose", [], {"perm": [1, 0, 2]})), {"y"}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(exported: Exported, tmp_path: Path, name: str) -> None:
    fault, outputs = FAULTS[name]
    source = exported("lstm", streaming=True)
    plant(source, tmp_path / "faulty.onnx", fault)
    report = rnnx.check(tmp_path / "faulty.onnx", source, probes=["sequence"])
    assert {finding.output for finding in report.findings if not finding.passed} == outputs


@pytest.mark.parametrize("fault", [faults.roll_gates(1), faults.scaled("y", 1.001)])
def test_a_fault_of_a_stream_shows_against_the_offline_one(
    exported: Exported, tmp_path: Path, fault: Fault
) -> None:
    plant(exported("lstm", streaming=True), tmp_path / "faulty.onnx", fault)
    report = rnnx.check(tmp_path / "faulty.onnx", exported("lstm", streaming=False))
    failed = {finding.probe for finding in report.findings if not finding.passed}
    assert {"sequence", "chunked"} <= failed


def test_a_quantized_artifact_is_held_against_its_source(
    exported: Exported, tmp_path: Path
) -> None:
    source = exported("wide", streaming=True)
    rnnx.quantize(source, tmp_path / "q.onnx", level="int8-store")
    report = rnnx.check(tmp_path / "q.onnx", source, probes=["sequence", "chunked"])
    assert report.passed, report.to_text()
    assert all(f.snr_db is not None and 30 < f.snr_db < 100 for f in report.findings)
    assert not rnnx.check(tmp_path / "q.onnx", source, probes=["sequence"], snr_db=100).passed


def test_a_stream_that_starts_elsewhere_is_another(exported: Exported, tmp_path: Path) -> None:
    source = exported("learned", streaming=True)
    plant(source, tmp_path / "faulty.onnx", faults.forgotten_start)
    report = rnnx.check(tmp_path / "faulty.onnx", source, probes=["sequence", "chunked"])
    assert {finding.probe for finding in report.findings if not finding.passed} == {"chunked"}


def test_states_that_only_one_has_are_left_out(exported: Exported, tmp_path: Path) -> None:
    def other_layer(model: onnx.ModelProto) -> None:
        edit_contract(model, lambda record: record["states"][0].update(layer=7))

    source = exported("gru", streaming=True)
    plant(source, tmp_path / "other.onnx", other_layer)
    reference = OnnxReference(source, rnnx.load_contract(tmp_path / "other.onnx"))
    assert not reference.has_all_states
    assert set(reference.comparable({"s000": np.zeros(1), "s001": np.zeros(1)})) == {"s001"}


REFUSED = {
    "features": ({"features": 5}, r"the input is x: .*, 5\] in the artifact, x: .*, 3\] in the"),
    "hidden size": ({"hidden_size": 6}, r"the output is y: .*, 6\] in the artifact, y: .*, 4\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_width_is_refused_by_name(tmp_path: Path, name: str) -> None:
    options, message = REFUSED[name]
    gru_artifact(tmp_path / "one.onnx")
    gru_artifact(tmp_path / "other.onnx", **options)
    with pytest.raises(InputError, match=message):
        rnnx.check(tmp_path / "other.onnx", tmp_path / "one.onnx")


def test_other_names_are_refused(exported: Exported) -> None:
    lstm, tokens = exported("lstm", streaming=True), exported("tokens", streaming=True)
    with pytest.raises(InputError, match=r"input 'tokens' is none of the reference, .* are x"):
        rnnx.check(tokens, lstm)
    explicit = exported("explicit-gru", streaming=False)
    with pytest.raises(InputError, match="output 'y' is none of the reference"):
        rnnx.check(lstm, explicit)


def test_an_input_that_only_the_reference_takes_is_refused(exported: Exported) -> None:
    """A stream carries the states that the offline one takes; two offline ones must agree."""
    streaming, offline = (exported("explicit-gru", streaming=way) for way in (True, False))
    assert rnnx.check(streaming, offline, probes=["sequence"]).passed
    with pytest.raises(InputError, match=r"input '.*' is none of the reference"):
        rnnx.check(offline, streaming)


def test_a_reference_of_one_sequence_is_refused(exported: Exported, tmp_path: Path) -> None:
    offline, fixed = exported("lstm", streaming=False), tmp_path / "fixed.onnx"
    rnnx.to_streaming(offline, fixed, chunk=4)
    with pytest.raises(InputError, match="any number of sequences, the reference 1") as caught:
        rnnx.check(offline, fixed)
    assert "the other way round" in str(caught.value.hint)
    assert rnnx.check(fixed, offline, probes=["sequence", "chunked"]).passed


def test_a_reference_that_is_no_artifact(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no file at"):
        rnnx.check(exported("lstm", streaming=True), tmp_path / "gone.onnx")


PROGRAM = """
import sys
for name in ("torch", "onnx", "onnx_ir", "onnxscript"):
    sys.modules[name] = None
from rnnx.cli import main
main()
"""


def test_it_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    gru_artifact(tmp_path / "a.onnx")
    gru_artifact(tmp_path / "b.onnx", seed=1)
    (tmp_path / "own.py").write_text("def mean(outputs, inputs):\n    return outputs['y'].mean()\n")
    np.save(tmp_path / "x.npy", np.ones((1, 4, 3), np.float32))
    own = ("--inputs", "x.npy", "--metric", "own.py:mean", "--metric-drop", "0")
    for against, code in (("a.onnx", 0), ("b.onnx", 1)):
        command = [sys.executable, "-c", PROGRAM, "check", "a.onnx", "--against", against, *own]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert done.stderr == f"checking a.onnx against {against}\n"

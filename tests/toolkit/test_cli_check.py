"""`rnnx check` as a person and a program meet it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import faults
import rnnx
from command_line import assert_refused, listing, run, run_process, run_without_reader
from faults import plant
from networks import NETWORKS

Capture = pytest.CaptureFixture[str]

NET = """
import torch
from networks import NETWORKS


def right():
    return NETWORKS["lstm"]()


def other():
    model, args = right()
    torch.nn.init.zeros_(model.rnn.weight_hh_l1)
    return model


def linear():
    return torch.nn.Linear(4, 4)
"""


@pytest.fixture(autouse=True)
def artifact(workplace: Path, exported: Callable[..., Path]) -> Path:
    """`m.onnx`, a streaming LSTM of two layers, and `net.py:right`, which it came from."""
    (workplace / "net.py").write_text(NET)
    path = workplace / "m.onnx"
    path.write_bytes(exported("lstm", streaming=True).read_bytes())
    return path


def test_equal_ends_with_0_and_a_table(capsys: Capture) -> None:
    ended = run(capsys, "check", "m.onnx", "--against", "net.py:right")
    assert ended.code == 0
    last = ended.out.splitlines()[-1]
    assert re.match("equal: [0-9]+ comparisons at rtol 0.0001, atol 1e-05;", last)
    table = ended.out.partition("\n\n")[0].splitlines()
    assert {line.split()[0] for line in table[2:]} == {
        *("x", "y"),
        *("s000", "s001", "s002", "s003"),
    }
    assert ended.err == "checking m.onnx against net.py:right\n"


def test_not_equal_ends_with_1_and_names_the_place(capsys: Capture) -> None:
    ended = run(capsys, "check", "m.onnx", "--against", "net.py:other")
    assert ended.code == 1
    assert "FAILED" in ended.out
    assert ended.out.splitlines()[-1].startswith("NOT EQUAL: ")
    assert "index [" in ended.out.splitlines()[-1]
    assert "rror" not in ended.err


@pytest.mark.parametrize(("spec", "code"), [("net.py:right", 0), ("net.py:other", 1)])
def test_json_is_all_of_stdout(capsys: Capture, spec: str, code: int) -> None:
    ended = run(capsys, "check", "m.onnx", "--against", spec, "--json", "--seed", "7")
    assert ended.code == code
    record = json.loads(ended.out)
    assert record["passed"] is (code == 0)
    assert record["seed"] == 7
    assert record["artifact"] == "m.onnx"


def test_the_command_says_what_the_library_says(capsys: Capture) -> None:
    ended = run(capsys, "check", "m.onnx", "--against", "net.py:right", "--json")
    report = rnnx.check("m.onnx", NETWORKS["lstm"]()[0])
    assert json.loads(ended.out) == json.loads(report.to_json())


def test_the_tolerance_decides(capsys: Capture) -> None:
    plant(Path("m.onnx"), Path("off.onnx"), faults.scaled("y", 1.01))
    arguments = ["check", "off.onnx", "--against", "net.py:right"]
    assert run(capsys, *arguments).code == 1
    assert run(capsys, *arguments, "--rtol", "0.02").code == 0
    assert run(capsys, *arguments, "--atol", "0.02").code == 0
    assert run(capsys, *arguments, "--rtol", "0.005").code == 1


def test_the_required_atol_it_prints_is_the_one_that_passes(capsys: Capture) -> None:
    plant(Path("m.onnx"), Path("off.onnx"), faults.scaled("y", 1.01))
    arguments = ["check", "off.onnx", "--against", "net.py:right", "--rtol", "0", "--json"]
    needed = json.loads(run(capsys, *arguments).out)["worst"]["required_atol"]
    assert run(capsys, *arguments, "--atol", needed * 1.001).code == 0
    assert run(capsys, *arguments, "--atol", needed * 0.999).code == 1


def test_weights_are_loaded_into_the_model(capsys: Capture) -> None:
    torch.save(NETWORKS["lstm"]()[0].state_dict(), "w.pt")
    arguments = ["check", "m.onnx", "--against", "net.py:other"]
    assert run(capsys, *arguments).code == 1
    assert run(capsys, *arguments, "--weights", "w.pt").code == 0


def test_where_no_weights_were_given_a_failure_says_so(capsys: Capture) -> None:
    torch.save(NETWORKS["lstm"]()[0].state_dict(), "w.pt")
    plant(Path("m.onnx"), Path("off.onnx"), faults.scaled("y", 1.01))
    failing = ["check", "off.onnx", "--against"]
    ended = run(capsys, *failing, "net.py:right", "--probe", "sequence")
    assert "net.py:right was built without --weights" in ended.err
    assert "--weights FILE" in ended.err
    weighted = run(capsys, *failing, "net.py:right", "--weights", "w.pt", "--probe", "sequence")
    artifact = run(capsys, *failing, "m.onnx", "--probe", "sequence")
    for ended in (weighted, artifact):
        assert ended.code == 1
        assert "--weights" not in ended.err


REFUSED = [
    (["m.onnx"], "Missing option '--against'"),
    (["--against", "net.py:right"], "Missing argument 'ARTIFACT'"),
    (["gone.onnx", "--against", "net.py:right"], "no file at 'gone.onnx'"),
    (["net.py", "--against", "net.py:right"], "onnxruntime cannot load 'net.py'"),
    (["m.onnx", "--against", "gone.py:right"], "no file at 'gone.py'"),
    (["m.onnx", "--against", "net.py:wrong"], "'net.py' has no 'wrong'"),
    (["m.onnx", "--against", "net.py"], "names no model"),
    (["m.onnx", "--against", "net.py:linear"], "recurrent module 'rnn', which the model lacks"),
    (["m.onnx", "--against", "net.py:right", "--weights", "m.onnx"], "is not a file of weights"),
    (["m.onnx", "--against", "net.py:right", "--rtol", "-1"], "a tolerance must be a number"),
    (["m.onnx", "--against", "net.py:right", "--atol", "nan"], "a tolerance must be a number"),
    (["m.onnx", "--against", "net.py:right", "--atol", "inf"], "a tolerance must be a number"),
    (["m.onnx", "--against", "net.py:right", "--atol", "small"], "is not a valid float"),
    (["m.onnx", "--against", "net.py:right", "--seed", "-1"], "not in the range x>=0"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_misuse_ends_with_2_and_writes_nothing(
    capsys: Capture, workplace: Path, arguments: list[str], says: str
) -> None:
    before = listing(workplace)
    assert_refused(run(capsys, "check", *arguments), says)
    assert listing(workplace) == before


def test_a_program_is_no_reference(capsys: Capture) -> None:
    program = torch.export.export(torch.nn.Linear(3, 3), (torch.zeros(2, 3),))
    torch.export.save(program, "net.pt2")
    ended = run(capsys, "check", "m.onnx", "--against", "net.pt2")
    assert_refused(ended, "a .pt2 program is no reference")
    assert "hint: Name the nn.Module." in ended.err


def test_a_process_ends_with_the_code(workplace: Path) -> None:
    (workplace / "flat.py").write_text("import torch\nmodel = torch.nn.Linear(4, 4)\n")
    ended = run_process("check", "m.onnx", "--against", "flat.py:model", "--json")
    assert_refused(ended, "which the model lacks")


def test_not_equal_in_a_process_of_its_own(workplace: Path) -> None:
    names = Path(__file__).parents[1]
    (workplace / "far.py").write_text(f"import sys\nsys.path.append({str(names)!r})\n{NET}")
    ended = run_process("check", "m.onnx", "--against", "far.py:other", "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["passed"] is False
    assert ended.err.splitlines()[0] == "checking m.onnx against far.py:other"
    without = run_without_reader("check", "m.onnx", "--against", "far.py:right")
    assert without.code == 141  # neither equal nor not: nobody read the verdict
    assert without.err == "checking m.onnx against far.py:right\n"

"""`rnnx export` as a person and a program meet it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import rnnx
from command_line import assert_refused, listing, run, run_process, run_without_reader
from networks import Plain

Capture = pytest.CaptureFixture[str]

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden_size=4):
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(3, hidden_size, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0]


class Backward(Net):
    def forward(self, x):
        return self.gru(x.flip(1))[0]


def make(hidden_size=4):
    return Net(hidden_size), (torch.randn(2, 7, 3),)


def backward():
    return Backward(), (torch.randn(2, 7, 3),)


def broken():
    raise ValueError("no such size")


def fails_later():
    return Net(), (torch.randn(2, 7, 5),)
"""


@pytest.fixture(autouse=True)
def folder(workplace: Path) -> Path:
    (workplace / "net.py").write_text(NET)
    return workplace


def test_what_it_did_is_data_and_the_rest_is_talk(capsys: Capture) -> None:
    ended = run(capsys, "export", "net.py:make", "-o", "m.onnx")
    assert ended.code == 0
    lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
    assert list(lines) == ["wrote", "operators", "input", "output", "proven", "next"]
    assert lines["wrote"].startswith("m.onnx (")
    assert lines["wrote"].endswith(" KB, offline)")
    assert "1 GRU" in lines["operators"].split(", ")
    assert lines["input"] == "x: float32[batch, time, 3]"
    assert lines["output"] == "y: float32[batch, time, 4]"
    assert float(lines["proven"].split()[-1]) < 1e-5
    assert lines["next"] == "rnnx check m.onnx --against net.py:make"
    assert [line.split()[0] for line in ended.err.splitlines()] == ["loading", "exporting,"]
    assert listing(Path()).keys() == {"net.py", "m.onnx"}


def test_a_streaming_export_tells_its_states(capsys: Capture) -> None:
    ended = run(capsys, "export", "net.py:make(6)", "-o", "m.onnx", "--streaming")
    assert "streaming)" in ended.out
    assert "states     1: [batch, 6]" in ended.out.splitlines()
    stream = rnnx.Stream("m.onnx", batch=2)
    y = stream.feed(np.zeros((2, 3, 3), np.float32))
    assert isinstance(y, np.ndarray)
    assert y.shape == (2, 3, 6)


@pytest.mark.parametrize("streaming", [[], ["--streaming"]])
def test_json_is_all_of_stdout_and_is_the_contract(capsys: Capture, streaming: list[str]) -> None:
    ended = run(capsys, "export", "net.py:make", "-o", "m.onnx", "--json", *streaming)
    assert ended.code == 0
    record = json.loads(ended.out)
    assert record.pop("bytes") == Path("m.onnx").stat().st_size
    assert record == json.loads(rnnx.load_contract("m.onnx").to_json())


def test_the_next_command_works_when_pasted_into_a_shell(capsys: Capture) -> None:
    folder = Path("my nets; $HOME")
    folder.mkdir()
    (folder / "it's.py").write_text(NET)
    torch.save(rnnx_net().state_dict(), folder / "w 1.pt")
    spec, weights = f"{folder}/it's.py:make(hidden_size=4)", f"{folder}/w 1.pt"
    ended = run(capsys, "export", spec, "-o", f"{folder}/m.onnx", "--weights", weights)
    (line,) = [line for line in ended.out.splitlines() if line.startswith("next ")]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        line.removeprefix("next").strip(),
        shell=True,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "equal: " in done.stdout


def rnnx_net() -> nn.Module:
    """The network of `net.py` with other weights."""
    scope: dict[str, Any] = {}
    exec(NET, scope)
    net: nn.Module = scope["Net"]()
    nn.init.uniform_(net.gru.weight_hh_l0)  # type: ignore[union-attr,arg-type]
    return net


def test_the_weights_given_are_those_in_the_artifact(capsys: Capture) -> None:
    net = rnnx_net()
    torch.save(net.state_dict(), "w.pt")
    assert run(capsys, "export", "net.py:make", "-o", "m.onnx", "--weights", "w.pt").code == 0
    assert rnnx.check("m.onnx", net).passed
    assert run(capsys, "check", "m.onnx", "--against", "net.py:make").code == 1


def test_inputs_by_declaration_and_by_file(capsys: Capture) -> None:
    np.savez("x.npz", x=np.ones((2, 5, 3), np.float32))
    for options in (["--input", "x=float32[batch, time, 3]"], ["--inputs", "x.npz"]):
        ended = run(capsys, "export", "net.py:Net", "-o", "m.onnx", *options)
        assert ended.code == 0, ended.err
        assert str(rnnx.load_contract("m.onnx").inputs[0]) == "x: float32[batch, time, 3]"


def test_a_declared_axis_that_is_a_number_is_fixed(capsys: Capture) -> None:
    options = ["--input", "x=float32[1,time,3]"]
    ended = run(capsys, "export", "net.py:Net", "-o", "m.onnx", "--streaming", *options)
    assert ended.code == 0, ended.err
    contract = rnnx.load_contract("m.onnx")
    assert contract.inputs[0].dims == (1, "time", 3)
    assert contract.inputs[0].batch_axis is None


def test_the_opset_can_be_chosen(capsys: Capture) -> None:
    import onnx

    assert run(capsys, "export", "net.py:make", "-o", "m.onnx", "--opset", "19").code == 0
    (opset,) = onnx.load("m.onnx").opset_import
    assert opset.version == 19


REFUSED = [
    (["net.py:make"], "Missing option '-o'"),
    (["-o", "m.onnx"], "Missing argument 'SPEC'"),
    (["net.py:make", "-o", "."], "'.' is a directory"),
    (["net.py:fails_later", "-o", "nowhere/m.onnx"], "no folder"),
    (["net.py:make", "-o", "./net.py"], "would overwrite 'net.py'"),
    (["net.py:make", "-o", "m.onnx", "--opset", "many"], "'many' is not a valid integer"),
    (["net.py:make", "-o", "m.onnx", "--opset", "3"], "opset"),
    (["net.py:make", "-o", "m.onnx", "--layers", "2"], "No such option"),
    (["net.py:Net", "-o", "m.onnx"], "no example inputs: add --input"),
    (
        ["net.py:Net", "-o", "m.onnx", "--input", "x=float32[2]", "--inputs", "x.npz"],
        "--input and --inputs exclude each other",
    ),
    (["net.py:Net", "-o", "m.onnx", "--input", "x=float32"], "cannot be read"),
    (["net.py:Net", "-o", "m.onnx", "--input", "y=float32[batch,time,3]"], "unknown: ['y']"),
    (["net.py:Net", "-o", "m.onnx", "--input", "x=int64[batch,time,3]"], "does not run on"),
    (["net.py:Net", "-o", "m.onnx", "--input", "x=float32[batch,time,4]"], "does not run on"),
    (["net.py:Net", "-o", "m.onnx", "--input", "x=float32[batch,time]"], "does not run on"),
    (["net.py:Net", "-o", "m.onnx", "--inputs", "gone.npz"], "no file at 'gone.npz'"),
    (["net.py:fails_later", "-o", "m.onnx"], "does not run on"),
    (["net.py:broken", "-o", "m.onnx"], "raised ValueError: no such size (at "),
    (["gone.py:make", "-o", "m.onnx"], "no file at 'gone.py'"),
    (["net.py:make", "-o", "m.onnx", "--weights", "gone.pt"], "no weights at 'gone.pt'"),
    (["net.py:backward", "-o", "m.onnx", "--streaming"], "cannot stream"),
]


@pytest.mark.parametrize(("arguments", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_misuse_ends_with_2_and_writes_nothing(
    capsys: Capture, arguments: list[str], says: str
) -> None:
    assert_refused(run(capsys, "export", *arguments), says)
    assert listing(Path()).keys() == {"net.py"}


def test_a_failed_export_leaves_the_last_one(capsys: Capture) -> None:
    Path("m.onnx").write_bytes(b"the last one")
    before = listing(Path())
    arguments = ["net.py:backward", "-o", "m.onnx", "--streaming"]
    assert_refused(run(capsys, "export", *arguments), "cannot stream")
    assert listing(Path()) == before


def test_debug_shows_the_traceback_and_the_sentence(capsys: Capture) -> None:
    arguments = ["export", "net.py:broken", "-o", "m.onnx"]
    shown = run(capsys, "--debug", *arguments, debug=True)
    assert shown.code == 2
    assert "Traceback" in shown.err
    assert "ValueError: no such size" in shown.err
    assert any(line.startswith("error: ") for line in shown.err.splitlines())
    assert_refused(run(capsys, *arguments), "no such size")


def test_a_fault_of_ours_is_called_one(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    import rnnx.spec

    def fails(*arguments: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr(rnnx.spec, "load_model", fails)
    ended = run(capsys, "export", "net.py:make", "-o", "m.onnx")
    assert ended.code == 2
    assert "error: unexpected KeyError: 'lost'" in ended.err
    assert "This is a fault in rnnx" in ended.err
    assert "Traceback" not in ended.err


def test_a_process_ends_with_the_code_and_nothing_else(folder: Path) -> None:
    ended = run_process("export", "net.py:broken", "-o", "m.onnx")
    assert_refused(ended, "raised ValueError: no such size")
    assert len(ended.err.splitlines()) == 2  # the talk and the error
    before = listing(folder)
    ended = run_process("export", "net.py:make", "-o", "m.onnx", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["outputs"][0]["name"] == "y"
    assert listing(folder).keys() - before.keys() == {"m.onnx"}


def test_a_reader_that_has_gone_is_no_error() -> None:
    ended = run_without_reader("export", "net.py:make", "-o", "m.onnx")
    assert ended.code == 141
    assert len(ended.err.splitlines()) == 2, ended.err  # the talk
    assert rnnx.load_contract("m.onnx").outputs[0].name == "y"


# --- torch.export programs

ignore_flat_weights = pytest.mark.filterwarnings("ignore:The tensor attributes:UserWarning")
BATCH = {"x": {0: torch.export.Dim("batch")}}


def save_program(model: nn.Module, *args: Any, dynamic_shapes: Any = None, **kwargs: Any) -> None:
    program = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes)
    torch.export.save(program, "net.pt2")


@ignore_flat_weights
@pytest.mark.parametrize("free", [False, True], ids=["fixed", "free-batch"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GRU", {}),
        ("GRU", {"num_layers": 2, "bidirectional": True}),
        ("LSTM", {"num_layers": 2}),
    ],
)
def test_a_program_becomes_native_layers_of_its_frozen_length(
    capsys: Capture, kind: str, options: dict[str, Any], free: bool
) -> None:
    model, x = Plain(kind, **options).eval(), torch.randn(3, 7, 4)
    save_program(model, x, dynamic_shapes=BATCH if free else None)
    ended = run(capsys, "export", "net.pt2", "-o", "m.onnx")
    assert ended.code == 0, ended.err
    assert not any(line.startswith("next") for line in ended.out.splitlines())
    contract = rnnx.load_contract("m.onnx")
    assert contract.inputs[0].dims == ("batch" if free else 3, 7, 4)
    assert contract.operators[kind] == options.get("num_layers", 1)
    session = ort.InferenceSession("m.onnx")
    for batch in (1, 3, 5) if free else (3,):
        x = torch.randn(batch, 7, 4)
        with torch.no_grad():
            expected = model(x).numpy()
        (actual,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)
    assert rnnx.check("m.onnx", model).passed


class WithState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        y: torch.Tensor = self.gru(x, h)[0]
        return y


@ignore_flat_weights
@pytest.mark.parametrize("h", [None, torch.zeros(1, 2, 4)], ids=["without", "with"])
def test_a_program_with_optional_arguments(capsys: Capture, h: torch.Tensor | None) -> None:
    model = WithState()
    save_program(model, torch.randn(2, 7, 4), h)
    assert run(capsys, "export", "net.pt2", "-o", "m.onnx").code == 0
    names = [port.name for port in rnnx.load_contract("m.onnx").inputs]
    assert names == (["x"] if h is None else ["x", "h"])
    assert rnnx.check("m.onnx", model).passed


@ignore_flat_weights
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--streaming"], "has frozen the length of its recurrent layers"),
        (["--weights", "w.pt"], "holds its own weights"),
        (["--input", "x=float32[batch,time,4]"], "holds its own example inputs"),
        (["--inputs", "x.npz"], "holds its own example inputs"),
    ],
)
def test_a_program_takes_no_other_sizes_weights_or_inputs(
    capsys: Capture, options: list[str], says: str
) -> None:
    save_program(Plain("GRU"), torch.randn(2, 7, 4))
    before = listing(Path())
    assert_refused(run(capsys, "export", "net.pt2", "-o", "m.onnx", *options), says)
    assert listing(Path()) == before


@ignore_flat_weights
def test_programs_that_cannot_become_artifacts(capsys: Capture) -> None:
    save_program(Plain("RNN"), torch.randn(2, 7, 4))
    assert_refused(run(capsys, "export", "net.pt2", "-o", "m.onnx"), "unrolls the nn.RNN")
    save_program(WithState(), torch.randn(2, 7, 4), h=torch.zeros(1, 2, 4))
    assert_refused(run(capsys, "export", "net.pt2", "-o", "m.onnx"), "keyword arguments: h")
    save_program(Plain("LSTM", num_layers=2, dropout=0.5).train(), torch.randn(2, 7, 4))
    assert_refused(run(capsys, "export", "net.pt2", "-o", "m.onnx"), "differs from the model")
    assert not Path("m.onnx").exists()

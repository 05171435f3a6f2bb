"""What a SPEC may be, what it gives, and how everything else is refused."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import dumps, loads
from typing import Any

import pytest
import torch
from torch import nn

from rnnx import SpecError
from rnnx.spec import load_model, load_weights

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden_size=4, *, layers=1):
        super().__init__()
        self.gru = nn.GRU(3, hidden_size, layers, batch_first=True)

    def forward(self, x):
        return self.gru(x)[0]


def make(hidden_size=4, layers=1):
    return Net(hidden_size, layers=layers)


def pair():
    return Net(), (torch.zeros(2, 5, 3),)


def single():
    return Net(), torch.zeros(2, 5, 3)


def broken():
    raise ValueError("no such size")


def deep():
    return nn.GRU(3, -1)


def nothing():
    return None


def leave():
    raise SystemExit(0)


ready = Net(6)
number = 5
"""


pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


def hidden_size(spec: str, weights: str | None = None) -> int:
    model = load_model(spec, weights).model
    assert isinstance(model, nn.Module)
    gru = model.gru
    assert isinstance(gru, nn.GRU)
    return gru.hidden_size


def refused(spec: str, weights: str | None = None) -> SpecError:
    with pytest.raises(SpecError) as caught:
        load_model(spec, weights)
    return caught.value


@pytest.mark.usefixtures("net")
@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("make", 4),
        ("make()", 4),
        ("make(7)", 7),
        ("make(hidden_size=8, layers=2)", 8),
        ("Net", 4),
        ("Net(9, layers=2)", 9),
        ("ready", 6),
        ("pair", 4),
    ],
)
@pytest.mark.parametrize("where", ["net.py", "./net.py", "net"])
def test_functions_classes_and_instances_by_file_and_by_module(
    where: str, call: str, expected: int
) -> None:
    assert hidden_size(f"{where}:{call}") == expected


def test_a_module_inside_a_package(tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / "__init__.py").touch()
    (tmp_path / "speech" / "net.py").write_text(NET)
    assert hidden_size("speech.net:make(5)") == 5


def test_a_file_imports_its_neighbours_from_wherever_it_lies(tmp_path: Path) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    (folder / "sizes.py").write_text("HIDDEN = 11\n")
    (folder / "my-net.py").write_text(NET + "\nimport sizes\nsized = Net(sizes.HIDDEN)\n")
    assert hidden_size("my models/my-net.py:sized") == 11
    assert hidden_size(f"{folder / 'my-net.py'}:sized") == 11


@pytest.mark.usefixtures("net")
def test_a_factory_may_bring_its_example_arguments() -> None:
    assert load_model("net.py:make").args is None
    for call in ("pair", "single"):
        args = load_model(f"net.py:{call}").args
        assert args is not None
        assert [tuple(arg.shape) for arg in args] == [(2, 5, 3)]


@pytest.mark.usefixtures("net")
@pytest.mark.parametrize(
    ("spec", "says", "advises"),
    [
        ("gone.py:make", "no file at 'gone.py'", "path/file.py:factory"),
        ("gone:make", "there is no module 'gone'", "package.module:factory"),
        ("net.gone:make", "there is no module 'net.gone'", "package.module:factory"),
        (r"C:\models\net.py:make", r"no file at 'C:\\models\\net.py'", "path/file.py:factory"),
        ("C:/models/net.py:make", "no file at 'C:/models/net.py'", "path/file.py:factory"),
        (r"C:\models\net.py", "names no model", "path/file.py:factory"),
        ("net.py", "'net.py' names no model", "path/file.py:factory"),
        ("net.py:", "'net.py:' names no model", "path/file.py:factory"),
        (":make", "':make' names no model", "path/file.py:factory"),
        ("", "'' names no model", "path/file.py:factory"),
        (".:make", "importing '.' failed", ""),
        ("net.py:maek", "'net.py' has no 'maek'", "make, pair, single"),
        ("net.py:broken", "raised ValueError: no such size (at ", ""),
        ("net.py:nothing", "made NoneType, not an nn.Module", "(model, example_arguments)"),
        ("net.py:number", "raised TypeError: 'int' object is not callable", ""),
        ("net.py:make('a', 'b', 'c')", "raised TypeError: make() takes from 0 to 2", ""),
        ("net.py:leave", "raised SystemExit: 0", ""),
        ("net.py:ready(3)", "is a model already, and takes no arguments", ""),
        ("net.py:make(size)", "neither a name nor a call with literal", "factory('small'"),
        ("net.py:make(**{'layers': 2})", "neither a name nor a call with literal", "factory("),
        ("net.py:make({[]: 1})", "neither a name nor a call with literal", "factory("),
        ("net.py:make(", "neither a name nor a call with literal", "factory("),
        ("net.py:nn.GRU(3, 4)", "neither a name nor a call with literal", "factory("),
        ("net.py:make\0", "neither a name nor a call with literal", "factory("),
    ],
)
def test_a_wrong_spec_is_refused_with_a_reason(spec: str, says: str, advises: str) -> None:
    error = refused(spec)
    assert says in str(error)
    assert advises in (error.hint or "")


def line_of(text: str) -> int:
    return NET.splitlines().index(text) + 1


@pytest.mark.usefixtures("net")
@pytest.mark.parametrize(
    ("call", "line"),
    [("broken", '    raise ValueError("no such size")'), ("deep", "    return nn.GRU(3, -1)")],
)
def test_a_factory_that_raises_is_shown_by_its_own_line_not_torchs(call: str, line: str) -> None:
    assert f"net.py:{line_of(line)}: {line.strip()}" in str(refused(f"net.py:{call}"))


def test_a_syntax_error_is_shown_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("import torch\n\ndef make(:\n")
    message = str(refused("bad.py:make"))
    assert "SyntaxError: invalid syntax" in message
    assert "bad.py:3" in message
    assert "importlib" not in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import gone_package\n", "'bad.py' needs the module 'gone_package', which is missing"),
        ("from torch import gone\n", "ImportError: cannot import name 'gone'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero (at "),
        ("import sys\nsys.exit(0)\n", "SystemExit: 0"),
        ("(\n", "SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_imported(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "bad.py").write_text(text)
    assert says in str(refused("bad.py:make"))


def test_a_package_whose_own_part_is_missing_is_not_called_missing_itself(tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech" / "__init__.py").touch()
    (tmp_path / "speech" / "net.py").write_text("import speech.gone\n")
    message = str(refused("speech.net:make"))
    assert message == "'speech.net' needs the module 'speech.gone', which is missing"


# --- weights


class Bomb:
    """Loading its pickle writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)


def trained(net: Path, hidden_size: int = 4) -> nn.Module:
    torch.manual_seed(7)
    model = load_model(f"{net}:make({hidden_size})").model
    assert isinstance(model, nn.Module)
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
    ],
    ids=["state-dict", "nested", "checkpoint"],
)
def test_weights_are_loaded(net: Path, wrap: Callable[[Any], Any]) -> None:
    source = trained(net)
    torch.save(wrap(source.state_dict()), "w.pt")
    loaded = load_model("net.py:make", "w.pt").model
    assert isinstance(loaded, nn.Module)
    for name, value in source.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def _save_text(model: nn.Module) -> None:
    Path("w.pt").write_text("these are not weights\n")


def _save_greeting(model: nn.Module) -> None:
    Path("w.pt").write_text("hello\n")  # as a pickle it reads entry 101, which is all torch says


def _save_empty(model: nn.Module) -> None:
    Path("w.pt").touch()


def _save_list(model: nn.Module) -> None:
    torch.save(list(model.state_dict().values()), "w.pt")


def _save_other_sizes(model: nn.Module) -> None:
    torch.save(nn.GRU(3, 5).state_dict(), "w.pt")


def _save_partly(model: nn.Module) -> None:
    state = model.state_dict()
    state.pop("gru.bias_hh_l0")
    torch.save(state, "w.pt")


def _save_cut(model: nn.Module) -> None:
    torch.save(model.state_dict(), "w.pt")
    whole = Path("w.pt").read_bytes()
    Path("w.pt").write_bytes(whole[: len(whole) // 2])


def _save_numbers(model: nn.Module) -> None:
    torch.save({1: torch.zeros(3)}, "w.pt")


def _save_strings(model: nn.Module) -> None:
    torch.save({"state_dict": "best.pt"}, "w.pt")


def _save_nothing(model: nn.Module) -> None:
    """Leave no file."""


@pytest.mark.parametrize(
    ("save", "says"),
    [
        (_save_nothing, "no weights at 'w.pt'"),
        (_save_text, "'w.pt' is not a file of weights"),
        (_save_greeting, "'w.pt' is not a file of weights"),
        (_save_empty, "'w.pt' is not a file of weights"),
        (_save_cut, "'w.pt' is not a file of weights"),
        (_save_list, "'w.pt' holds a list, not a state dict"),
        (_save_partly, 'Missing key(s) in state_dict: "gru.bias_hh_l0"'),
        (_save_other_sizes, "the weights in 'w.pt' do not fit Net"),
        (_save_numbers, "the weights in 'w.pt' do not fit Net"),
        (_save_strings, "the weights in 'w.pt' do not fit Net"),
    ],
)
def test_what_is_no_weights_is_refused(
    net: Path, save: Callable[[nn.Module], None], says: str
) -> None:
    save(trained(net))
    error = refused("net.py:make", "w.pt")
    assert says in str(error)
    assert error.hint
    if "not a file" in says:
        assert re.search(r"that torch\.save wrote: \w+Error", str(error))
    assert "\n" not in str(error)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(dumps(value))])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(
    net: Path, save: Callable[[Any, Path], Any]
) -> None:
    path = Path("w.pt")
    save({"model": Bomb("exploded")}, path)
    error = refused("net.py:make", "w.pt")
    assert "is not a file of weights" in str(error)
    assert "state dict" in (error.hint or "")
    assert not Path("exploded").exists()


def test_the_bomb_is_a_real_one() -> None:
    loads(dumps(Bomb("exploded")))
    assert Path("exploded").exists()


def test_a_whole_pickled_model_is_refused(net: Path) -> None:
    torch.save(nn.GRU(3, 4), "w.pt")
    with pytest.raises(SpecError, match="is not a file of weights"):
        load_weights(trained(net), "w.pt")


# --- torch.export programs


def program(path: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    torch.export.save(torch.export.export(model, (torch.zeros(2, 3),)), path)


def rewritten(path: str, change: Callable[[str, bytes], bytes]) -> None:
    """The zip archive at `path` with every file changed."""
    with zipfile.ZipFile(path) as archive:
        files = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in files:
            archive.writestr(info, change(info.filename, data))


def test_a_program_is_loaded() -> None:
    program("net.pt2")
    loaded = load_model("net.pt2")
    assert isinstance(loaded.model, torch.export.ExportedProgram)
    assert loaded.args is None


def test_a_program_whose_pickle_runs_code_is_refused_and_does_not_run() -> None:
    program("net.pt2")
    buffer = io.BytesIO()
    torch.save((Bomb("exploded"),), buffer)
    rewritten("net.pt2", lambda name, data: buffer.getvalue() if "sample_inputs" in name else data)
    assert "'net.pt2' is not a torch.export program" in str(refused("net.pt2"))
    assert not Path("exploded").exists()


def test_a_program_that_brings_compiled_code_is_refused_unloaded() -> None:
    program("net.pt2")
    with zipfile.ZipFile("net.pt2", "a") as archive:
        archive.writestr("net/data/aotinductor/model/model.so", b"\x7fELF")
    assert "compiled code" in str(refused("net.pt2"))


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "cut", "another-archive", "weights"])
def test_what_is_no_program_is_refused_in_one_sentence(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = Path("net.pt2")
    program("net.pt2")
    whole = path.read_bytes()
    path.unlink()
    if kind == "another-archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello.txt", "hello")
    elif kind == "weights":
        torch.save(nn.GRU(3, 4).state_dict(), path)
    elif kind != "missing":
        path.write_bytes({"text": b"hello\n", "empty": b"", "cut": whole[:-500]}[kind])
    error = refused("net.pt2")
    says = "no file at 'net.pt2'" if kind == "missing" else "'net.pt2' is not a torch.export prog"
    assert says in str(error)
    assert error.hint
    assert "\n" not in str(error)
    assert capfd.readouterr() == ("", "")


def test_a_program_holds_its_own_weights() -> None:
    program("net.pt2")
    torch.save({}, "w.pt")
    assert "holds its own weights" in str(refused("net.pt2", "w.pt"))

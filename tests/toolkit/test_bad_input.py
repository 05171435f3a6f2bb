"""Bad input to every command: one `error:` sentence, exit code 2, and nothing written."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rnnx
from command_line import assert_refused, listing, run
from faults import edit_contract, plant
from networks import NETWORKS
from rnnx import ArtifactError, InputError, Model, RnnxError, Stream
from rnnx.quantization import quality

Capture = pytest.CaptureFixture[str]
Corrupt = Callable[[Path], None]

NET = """
from networks import NETWORKS


def gru():
    return NETWORKS["wide"]()


def tokens():
    return NETWORKS["tokens"]()


def broken():
    raise ValueError("no such size")
"""

VERBS = {
    "check": ("m.onnx", "--against", "net.py:gru"),
    "stream": ("m.onnx", "--input", "x.npy", "-o", "y.csv"),
    "inspect": ("m.onnx",),
    "bench": ("m.onnx", "--chunk", "3", "--seconds", "0.001"),
    "quantize": ("m.onnx", "-o", "small.onnx"),
}
verbs = pytest.mark.parametrize("verb", VERBS)


@pytest.fixture(autouse=True)
def folder(workplace: Path, exported: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """`m.onnx`, a streaming GRU; `net.py:gru`, which it came from; `x.npy`, frames for it."""
    monkeypatch.setattr(quality, "_SECONDS", 0.0)
    (workplace / "net.py").write_text(NET)
    (workplace / "m.onnx").write_bytes(exported("wide", streaming=True).read_bytes())
    np.save(workplace / "x.npy", np.ones((9, 4), np.float32))
    return workplace


def refuse(capsys: Capture, folder: Path, says: str, *arguments: object) -> None:
    before = listing(folder)
    assert_refused(run(capsys, *arguments), says)
    assert listing(folder) == before


@verbs
def test_the_good_artifact_is_taken(capsys: Capture, verb: str) -> None:
    ended = run(capsys, verb, *VERBS[verb])
    assert ended.code == 0, ended.err


# --- files that are no artifacts


def _remove(path: Path) -> None:
    path.unlink()


def _text(path: Path) -> None:
    path.write_text("these are not the bytes you are looking for\n")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _random(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(3000))


def _without_contract(path: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


def _array(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), x=np.zeros(3))
    path.with_suffix(".npz").replace(path)


def _unknown_operator(path: Path) -> None:
    model = onnx.load(path)
    model.graph.node[0].op_type = "Transmogrify"
    onnx.save(model, path)


FILES: dict[str, tuple[Corrupt, str]] = {
    "missing": (_remove, "no file at 'm.onnx'"),
    "text": (_text, "'m.onnx'"),
    "empty": (_empty, "'m.onnx'"),
    "cut": (_cut, "'m.onnx'"),
    "random": (_random, "'m.onnx'"),
    "an archive": (_array, "'m.onnx'"),
    "unknown operator": (_unknown_operator, "'m.onnx'"),
}


@verbs
@pytest.mark.parametrize(("corrupt", "says"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_artifact(
    capsys: Capture, folder: Path, verb: str, corrupt: Corrupt, says: str
) -> None:
    corrupt(folder / "m.onnx")
    refuse(capsys, folder, says, verb, *VERBS[verb])


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "quantize"])
def test_onnx_without_a_contract(capsys: Capture, folder: Path, verb: str) -> None:
    """Only quantize takes any ONNX file."""
    _without_contract(folder / "m.onnx")
    refuse(capsys, folder, "'m.onnx' carries no rnnx contract", verb, *VERBS[verb])


@verbs
def test_a_folder_is_no_artifact(capsys: Capture, folder: Path, verb: str) -> None:
    (folder / "m.onnx").unlink()
    (folder / "m.onnx").mkdir()
    refuse(capsys, folder, "m.onnx'", verb, *VERBS[verb])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_as_an_artifact(folder: Path, data: bytes) -> None:
    path = folder / "any.onnx"
    path.write_bytes(data)
    with pytest.raises(ArtifactError):
        rnnx.load_contract(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_artifact_cut_anywhere_is_refused(folder: Path, data: st.DataObject) -> None:
    whole = (folder / "m.onnx").read_bytes()
    path = folder / "cut.onnx"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ArtifactError):
        rnnx.load_contract(path)


# --- contracts that lie


def _set(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    """Sets one value deep inside a contract's record."""

    def edit(record: dict[str, Any]) -> None:
        holder = functools.reduce(lambda found, key: found[key], keys[:-1], record)
        holder[keys[-1]] = to

    return edit


DIFFER = "the contract does not describe this graph"
DAMAGED = "the contract in the file's metadata is damaged"
LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another version": (_set("version", to=99), f"{DAMAGED}: ValueError: version 99 is not 1"),
    "inputs no list": (_set("inputs", to="x"), DAMAGED),
    "no outputs": (_set("outputs", to=[]), f"{DIFFER}: its outputs differ in y"),
    "another name": (_set("inputs", 0, "name", to="z"), f"{DIFFER}: its inputs differ in x, z"),
    "another dtype": (_set("inputs", 0, "dtype", to="int64"), f"{DIFFER}: its inputs differ in x"),
    "no dtype": (_set("inputs", 0, "dtype", to="float33"), f"{DAMAGED}: ValueError: dtype"),
    "other features": (
        _set("inputs", 0, "dims", to=["batch", "time", 5]),
        f"{DIFFER}: its inputs differ in x",
    ),
    "another rank": (
        _set("outputs", 0, "dims", to=["batch", "time", 48, 1]),
        f"{DIFFER}: its outputs differ in y",
    ),
    "axis 7": (_set("inputs", 0, "time_axis", to=7), f"{DAMAGED}: ValueError: axis 7"),
    "one axis for both": (_set("inputs", 0, "time_axis", to=0), "both batch and time"),
    "no states": (_set("states", to=[]), f"{DIFFER}: its inputs differ in s000_in"),
    "another state": (_set("states", 0, "name", to="s009"), f"{DIFFER}: its inputs differ in"),
    "a wider state": (_set("states", 0, "dims", to=["batch", 5]), f"{DIFFER}: its inputs differ"),
    "a state in between": (_set("states", 0, "dims", to=["batch", "wide"]), "may be free"),
    "a start of no bytes": (_set("states", 0, "initial", to=""), DAMAGED),
    "a start of no base64": (_set("states", 0, "initial", to="*"), DAMAGED),
    "no rate": (_set("sample_rate", to=-1), f"{DAMAGED}: ValueError: sample_rate is -1"),
    "a huge size": (_set("inputs", 0, "dims", to=["batch", "time", 2**40]), "out of range"),
    "a negative delay": (_set("outputs", 0, "delay", to=-1), "is negative"),
}


@verbs
@pytest.mark.parametrize(("lie", "says"), LIES.values(), ids=LIES)
def test_a_contract_that_lies(
    capsys: Capture, folder: Path, verb: str, lie: Callable[[dict[str, Any]], None], says: str
) -> None:
    plant(folder / "m.onnx", folder / "m.onnx", lambda model: edit_contract(model, lie))
    refuse(capsys, folder, says, verb, *VERBS[verb])


@verbs
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '"text"', "[" * 5000, "NaN"])
def test_a_contract_that_is_no_json(capsys: Capture, folder: Path, verb: str, text: str) -> None:
    def fault(model: onnx.ModelProto) -> None:
        model.metadata_props[0].value = text

    plant(folder / "m.onnx", folder / "m.onnx", fault)
    refuse(capsys, folder, DAMAGED, verb, *VERBS[verb])


def _exchange_axes(record: dict[str, Any]) -> None:
    for port in (record["inputs"][0], record["outputs"][0]):
        port["batch_axis"], port["time_axis"] = port["time_axis"], port["batch_axis"]


def _fixed_length(record: dict[str, Any]) -> None:
    record["inputs"][0].update(dims=[2, "time", 4], batch_axis=None)


def test_a_lie_that_only_a_run_shows_is_not_believed(capsys: Capture, folder: Path) -> None:
    """Where the graph's own shapes cannot tell, no command may call the artifact right."""
    for lie in (_exchange_axes, _fixed_length):
        fault = functools.partial(edit_contract, edit=lie)
        plant(folder / "m.onnx", folder / "lie.onnx", fault)
        ended = run(capsys, "check", "lie.onnx", "--against", "net.py:gru")
        assert ended.code in (1, 2)
        assert "fault in rnnx" not in ended.err
        assert "Traceback" not in ended.err


def test_an_offline_graph_that_calls_itself_streaming_fails_the_check(
    capsys: Capture, folder: Path, exported: Callable[..., Path]
) -> None:
    def lie(model: onnx.ModelProto) -> None:
        edit_contract(model, lambda record: record.update(streaming=True))

    plant(exported("wide", streaming=False), folder / "m.onnx", lie)
    ended = run(capsys, "check", "m.onnx", "--against", "net.py:gru")
    assert ended.code == 1
    assert "NOT EQUAL" in ended.out


@pytest.mark.parametrize("verb", ["check", "bench", "quantize"])
def test_ids_that_the_table_does_not_have(
    capsys: Capture, folder: Path, exported: Callable[..., Path], verb: str
) -> None:
    def lie(model: onnx.ModelProto) -> None:
        edit_contract(model, lambda record: record["inputs"][0].update(num_embeddings=10**6))

    plant(exported("tokens", streaming=True), folder / "m.onnx", lie)
    arguments = ("m.onnx", "--against", "net.py:tokens") if verb == "check" else VERBS[verb]
    refuse(capsys, folder, "", verb, *arguments)


# --- the same through the library


@pytest.mark.parametrize("batch", [1, 3])
def test_a_batch_that_changes_in_mid_stream(folder: Path, batch: int) -> None:
    stream = Stream(folder / "m.onnx", batch=2)
    x = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    first = stream.feed(x[:, :3])
    with pytest.raises(
        InputError, match=f"holds {batch} sequences, but the stream was opened for 2"
    ):
        stream.feed(np.zeros((batch, 3, 4), np.float32))
    assert stream.position == 3
    both = np.concatenate([first, stream.feed(x[:, 3:])], axis=1)  # type: ignore[list-item]
    whole = Model(folder / "m.onnx").run(x)
    np.testing.assert_allclose(both, whole, rtol=1e-5, atol=1e-6)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((2, 0, 4), "no frame"),
        ((0, 7, 4), "no sequence"),
        ((2, 7, 5), "has shape"),
        ((2, 7), "has shape"),
        ((2, 7, 4, 1), "has shape"),
        ((), "has shape"),
    ],
)
def test_a_whole_run_of_nothing_or_of_other_sizes(
    folder: Path, shape: tuple[int, ...], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        Model(folder / "m.onnx").run(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "bool", "complex64", "U1", "O"])
def test_another_dtype(folder: Path, dtype: str) -> None:
    for take in (Model(folder / "m.onnx").run, Stream(folder / "m.onnx").feed):
        with pytest.raises(InputError) as caught:
            take(np.zeros((1, 7, 4), dtype))
        assert "the artifact takes float32" in str(caught.value)


def test_every_failure_is_an_rnnx_error_with_a_way_out(folder: Path) -> None:
    model = NETWORKS["wide"]()[0]
    calls: list[Callable[[], Any]] = [
        lambda: rnnx.check(folder / "gone.onnx", model),
        lambda: rnnx.check(folder / "net.py", model),
        lambda: rnnx.check(folder / "m.onnx", torch.nn.Linear(4, 4)),
        lambda: rnnx.check(folder / "m.onnx", model, atol=-1),
        lambda: rnnx.load_contract(folder),
        lambda: rnnx.to_streaming(folder / "net.py", folder / "new.onnx"),
        lambda: rnnx.quantize(folder / "net.py", folder / "new.onnx"),
        lambda: rnnx.export(model, (torch.zeros(2, 7, 5),), folder / "new.onnx"),
    ]
    for call in calls:
        with pytest.raises(RnnxError) as caught:
            call()
        assert caught.value.hint
    assert not (folder / "new.onnx").exists()

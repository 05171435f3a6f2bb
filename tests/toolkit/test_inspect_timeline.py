"""`rnnx inspect --timeline`: how time runs through a graph, as a table, JSON and a picture."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import rnnx
from command_line import assert_refused, run
from rnnx_exporters.timetable import TIMETABLE_KEY, Row

Capture = pytest.CaptureFixture[str]

# Windows of 4 frames, 2 apart; one that looks two of these ahead; a GRU; the skip around both.
GRAPH = """<ir_version: 10, opset_import: ["": 18]>
    g (float[batch,3,time] x) => (float[batch,3,rest] y) {
        front = Conv<strides=[2]>(x, w4)
        context = Conv<pads=[2,2]>(front, w5)
        turned = Transpose<perm=[2,0,1]>(context)
        states, h = GRU<hidden_size=3>(turned, W, R)
        one = Constant<value_ints=[1]>()
        squeezed = Squeeze(states, one)
        back = Transpose<perm=[1,2,0]>(squeezed)
        y = Add(back, front)
    }"""
# stride, delay, first and last frame seen: by hand.
# The front's frame t sees 2t to 2t + 3; after 4 frames one has come, 2 frames less than its share.
# The context sees two more on both sides: 2t - 4 to 2t + 7, two front frames later.
KNOWN = {
    "x": ("1", 0, 0, 0),
    "front": ("2", 2, 0, 3),
    "context": ("2", 6, -4, 7),
    "turned": ("2", 6, -4, 7),
    "states": ("2", 6, None, 7),
    "squeezed": ("2", 6, None, 7),
    "back": ("2", 6, None, 7),
    "y": ("2", 6, None, 7),
}


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model, rng = onnx.parser.parse_model(GRAPH), np.random.default_rng(0)
    shapes = {"w4": (3, 3, 4), "w5": (3, 3, 5), "W": (1, 9, 3), "R": (1, 9, 3)}
    for name, shape in shapes.items():
        value = rng.normal(0, 0.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    path = tmp_path_factory.mktemp("timeline") / "offline.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def streaming(offline: Path) -> Path:
    path = offline.with_name("streaming.onnx")
    rnnx.to_streaming(offline, path)
    return path


@pytest.mark.parametrize("kind", ["offline", "streaming"])
def test_every_wire_tells_its_time(
    request: pytest.FixtureRequest, capsys: Capture, kind: str
) -> None:
    path = request.getfixturevalue(kind)
    ended = run(capsys, "inspect", path, "--timeline", "--json")
    assert (ended.code, ended.err) == (0, "")
    rows = {row["wire"]: row for row in json.loads(ended.out)}
    found = {n: (r["stride"], r["delay"], r["first"], r["last"]) for n, r in rows.items()}
    assert found == KNOWN
    assert [rows[name]["axis"] for name in ("x", "turned", "y")] == [2, 0, 2]
    assert [rows[name]["operator"] for name in ("x", "front", "states")] == ["input", "Conv", "GRU"]


def test_the_table_is_that_of_the_json(offline: Path, capsys: Capture) -> None:
    lines = run(capsys, "inspect", offline, "--timeline").out.splitlines()
    header = "wire operator module axis stride delay saw frames"
    assert " ".join(lines[0].split()) == header
    told = [" ".join(line.split()) for line in lines]
    assert "context Conv 2 2 6 -4 to +7" in told
    assert "states GRU 0 2 6 all to +7" in told
    assert len(told) == 2 + len(KNOWN)


def test_the_timetable_and_the_contract_agree(streaming: Path, tmp_path: Path) -> None:
    from rnnx_exporters.timetable import timetable

    fixed = tmp_path / "fixed.onnx"
    rnnx.to_streaming(streaming.with_name("offline.onnx"), fixed, chunk=8)
    for path in (streaming, fixed):
        (port,) = rnnx.load_contract(path).outputs
        row = timetable(path)[-1]
        assert (row.wire, row.delay, row.last) == ("y", port.delay, port.lookahead)


def test_what_cannot_stream_is_refused_by_node(tmp_path: Path, capsys: Capture) -> None:
    text = """<ir_version: 10, opset_import: ["": 18]>
        g (float[batch,time,3] x) => (float[batch,time,3] y) {
            [over_time] y = Softmax<axis=1>(x)
        }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "g.onnx")
    ended = run(capsys, "inspect", tmp_path / "g.onnx", "--timeline")
    assert_refused(ended, "Softmax node 'over_time' cannot stream")
    assert_refused(run(capsys, "inspect", tmp_path / "no.onnx", "--timeline"), "no file at")


@pytest.mark.parametrize("text", ["", "{", "3", "[3]", '[["x"]]', '[{"wire": "x"}]', "[]"])
def test_damaged_metadata_is_told(
    streaming: Path, tmp_path: Path, capsys: Capture, text: str
) -> None:
    model = onnx.load(streaming)
    (entry,) = (entry for entry in model.metadata_props if entry.key == TIMETABLE_KEY)
    entry.value = text
    onnx.save(model, tmp_path / "damaged.onnx")
    for options in ((), ("--picture", tmp_path / "p.png")):
        ended = run(capsys, "inspect", tmp_path / "damaged.onnx", "--timeline", *options)
        assert_refused(ended, "the timetable in the file's metadata is damaged")


FIELDS = [field.name for field in dataclasses.fields(Row)]


@pytest.mark.parametrize(
    ("field", "value"),
    [("stride", 3), ("delay", "late"), ("last", None), ("first", "x"), ("axis", "1"), ("wire", 1)],
)
def test_a_row_of_other_types_is_told(
    streaming: Path, tmp_path: Path, capsys: Capture, field: str, value: Any
) -> None:
    model = onnx.load(streaming)
    (entry,) = (entry for entry in model.metadata_props if entry.key == TIMETABLE_KEY)
    rows = json.loads(entry.value)
    rows[1][FIELDS.index(field)] = value
    entry.value = json.dumps(rows)
    onnx.save(model, tmp_path / "damaged.onnx")
    ended = run(capsys, "inspect", tmp_path / "damaged.onnx", "--timeline")
    assert_refused(ended, "the timetable in the file's metadata is damaged")


SIGNATURES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("ending", SIGNATURES)
def test_a_picture_is_drawn_without_a_display(
    offline: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    ending: str,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    picture = tmp_path / f"timeline{ending}"
    ended = run(capsys, "inspect", offline, "--picture", picture)
    assert ended.code == 0
    assert ended.err == f"drew {picture}\n"
    assert "context" in ended.out
    assert picture.read_bytes().startswith(SIGNATURES[ending])


def test_the_picture_names_the_wires_and_their_rates(offline: Path, tmp_path: Path) -> None:
    import matplotlib

    from rnnx.timeline_picture import draw
    from rnnx_exporters.timetable import timetable

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw(tmp_path / "p.svg", timetable(offline))
    text = (tmp_path / "p.svg").read_text()
    for told in ("x (input)", "front (Conv)", "every 2 frames, 2 late", "every 2 frames, 6 late"):
        assert told in text
    assert "turned (Transpose)" not in text  # nothing happens to time there


@pytest.mark.parametrize("name", ["timeline.xyz", "timeline", "timeline.onnx"])
def test_an_unknown_ending_is_refused(
    offline: Path, tmp_path: Path, capsys: Capture, name: str
) -> None:
    ended = run(capsys, "inspect", offline, "--picture", tmp_path / name)
    assert_refused(ended, "is no .png, .svg or .pdf file")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_told(offline: Path, tmp_path: Path, capsys: Capture) -> None:
    ended = run(capsys, "inspect", offline, "--picture", tmp_path / "no" / "p.png")
    assert_refused(ended, "no folder")


def test_without_matplotlib_the_extra_is_named(
    offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    for name in [name for name in sys.modules if name.startswith(("matplotlib", "rnnx.timeline"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ended = run(capsys, "inspect", offline, "--picture", tmp_path / "p.png")
    assert_refused(ended, "'matplotlib', which is not installed")
    assert "pip install 'rnnx[report]'" in ended.err
    assert run(capsys, "inspect", offline, "--timeline").code == 0

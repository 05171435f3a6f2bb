"""Seq2Seq over files made by hand, held against numpy."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attending
import rnnx_runtime
from attending import END, VOCABULARY, log_probs, weights, write_folder
from rnnx_runtime import ArtifactError, Contract, InputError, Seq2Seq
from rnnx_runtime.contract import METADATA_KEY
from searching import beam_search, exhaustive_search

MAX_LENGTH = 6
SOURCES = st.lists(
    st.lists(st.integers(0, attending.SOURCES - 1), min_size=1, max_size=6), min_size=1, max_size=4
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seq2seq")
    write_folder(folder, weights())
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Seq2Seq:
    return Seq2Seq(folder)


def _padded(sources: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(source) for source in sources])
    src = np.full((len(sources), lengths.max()), attending.SOURCES - 1)
    for row, source in zip(src, sources, strict=True):
        row[: len(source)] = source
    return src, lengths


@given(sources=SOURCES, beam=st.integers(1, 4), max_length=st.integers(1, MAX_LENGTH))
def test_every_source_is_decoded_as_if_alone(
    model: Seq2Seq, sources: list[list[int]], beam: int, max_length: int
) -> None:
    src, lengths = _padded(sources)
    ids, scores = model.generate(src, lengths, beam=beam, max_length=max_length)
    assert scores.dtype == np.float64
    for source, found, score in zip(sources, ids, scores, strict=True):
        expected = beam_search(
            log_probs(weights(), source), end=END, beam=beam, max_length=max_length
        )
        assert (found.dtype, found.tolist()) == (np.int64, expected[0])
        assert score == pytest.approx(expected[1], abs=1e-4)


@given(source=st.lists(st.integers(0, attending.SOURCES - 1), min_size=1, max_size=5))
def test_a_wide_enough_beam_finds_the_optimum(model: Seq2Seq, source: list[int]) -> None:
    expected = exhaustive_search(
        log_probs(weights(), source), vocabulary=VOCABULARY, end=END, max_length=4
    )
    ids, scores = model.generate(np.array([source]), beam=VOCABULARY**4, max_length=4)
    assert scores[0] == pytest.approx(expected[1], abs=1e-4)
    assert ids[0].tolist() == expected[0]


def test_lengths_are_the_whole_of_src_where_left_out(model: Seq2Seq) -> None:
    src = np.array([[1, 2, 3], [4, 5, 6]])
    given, left_out = model.generate(src, np.array([3, 3])), model.generate(src)
    np.testing.assert_array_equal(given.scores, left_out.scores)
    assert [row.tolist() for row in given.ids] == [row.tolist() for row in left_out.ids]


@pytest.mark.parametrize("beam", [1, 3])
def test_no_step_is_taken_once_no_source_can_win_more(
    tmp_path: Path, beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = weights()
    values["head"][:] = 0
    values["embedding"][:] = values["table"][:] = 1
    values["recurrent"][:] = 0
    values["head"][:, END] = 5  # so that every source ends at once
    write_folder(tmp_path / "m", values)
    model = Seq2Seq(tmp_path / "m")
    taken = []
    step = model.step
    monkeypatch.setattr(model, "step", lambda *args: taken.append(1) or step(*args))
    ids, _ = model.generate(np.array([[1, 2], [3, 4]]), beam=beam)
    assert [row.tolist() for row in ids] == [[], []]
    assert len(taken) == 1


@pytest.mark.parametrize("beam", [1, 4])
def test_no_more_than_max_length_ids_are_given(tmp_path: Path, beam: int) -> None:
    values = weights()
    values["embedding"][:] = 100  # so that the state is all ones
    values["head"][:, END] = -100  # and the end never likely
    write_folder(tmp_path / "m", values, max_length=3)
    model = Seq2Seq(tmp_path / "m")
    src = np.array([[1, 2], [3, 4]])
    assert [len(row) for row in model.generate(src, beam=beam).ids] == [3, 3]
    assert [len(row) for row in model.generate(src, beam=beam, max_length=9).ids] == [9, 9]


def test_encode_and_step_run_by_hand(model: Seq2Seq) -> None:
    memory, state = model.encode([[1, 2, 3]])
    logits, after = model.step(np.array([attending.START]), state, memory)
    expected = log_probs(weights(), [1, 2, 3])(())
    found = logits[0] - np.log(np.exp(logits[0]).sum())
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [array.shape for array in after] == [array.shape for array in state]
    with pytest.raises(InputError, match="the step takes 4 arrays"):
        model.step(np.array([0]), state, ())
    with pytest.raises(InputError, match="no sequence"):
        model.step(np.zeros(0, np.int64), [state[0][:0]], [array[:0] for array in memory])


@pytest.mark.parametrize(
    ("src", "lengths", "options", "message"),
    [
        (np.zeros((2, 3), np.float32), None, {}, "'src' is float32, but the artifact takes int64"),
        (np.zeros(3, np.int64), None, {}, r"'src' has shape \[3\]"),
        ([["a"]], None, {}, "is not an array of int64"),
        (np.zeros((0, 3), np.int64), None, {}, "no sequence"),
        (np.zeros((2, 0), np.int64), None, {}, "no frame"),
        (np.full((1, 2), attending.SOURCES), None, {}, "onnxruntime failed"),
        (np.zeros((2, 3), np.int64), [1, 0], {}, r"lengths\[1\] is 0, but src has 3 frames"),
        (np.zeros((2, 3), np.int64), [4, 1], {}, r"lengths\[0\] is 4, but src has 3 frames"),
        (np.zeros((2, 3), np.int64), [1], {}, "disagree in their batch axis"),
        (np.zeros((2, 3), np.int64), np.ones(2), {}, "'lengths' is float64"),
        (np.zeros((1, 3), np.int64), None, {"beam": 0}, "beam is 0"),
        (np.zeros((1, 3), np.int64), None, {"beam": True}, "beam is True"),
        (np.zeros((1, 3), np.int64), None, {"beam": 2.0}, "beam is 2.0"),
        (np.zeros((1, 3), np.int64), None, {"max_length": 0}, "max_length is 0"),
    ],
)
def test_bad_input_is_refused(
    model: Seq2Seq, src: Any, lengths: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.generate(src, lengths, **options)


def test_logits_that_are_no_probabilities_are_refused(tmp_path: Path) -> None:
    values = weights()
    values["table"][3] = np.nan
    write_folder(tmp_path / "m", values)
    model = Seq2Seq(tmp_path / "m")
    for beam in (1, 2):
        with pytest.raises(InputError, match="at step 0"):
            model.generate([[1, 3]], beam=beam)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"memory": None},
        {"memory": ["m000"]},
        {"memory": ["m001", "m000"]},
        {"memory": ["m000", "../m001"]},
        {"memory": "m000"},
        {"memory": ["m000"] * 2000},
        {"memory": [["m000"], {}]},
        {"states": []},
        {"states": ["s000", "s001"]},
        {"memory": [], "states": []},
        {"start": -1},
        {"start": 1.5},
        {"start": True},
        {"end": VOCABULARY},
        {"end": "2"},
        {"max_length": 0},
        {"max_length": 1 << 40},
        {"vocabulary_size": VOCABULARY + 1},
        {"vocabulary_size": None},
        {"fingerprints": {}},
        {"fingerprints": []},
        {"fingerprints": {"encoder.onnx": "0" * 64, "step.onnx": "0" * 64}},
        {"fingerprints": {"../encoder.onnx": "0" * 64}},
        {"checked": 3},
    ],
)
def test_a_contract_that_lies_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_folder(tmp_path / "m", weights(), **changes)
    with pytest.raises(ArtifactError, match=r"contract\.json") as caught:
        Seq2Seq(tmp_path / "m")
    assert caught.value.hint


@pytest.mark.parametrize("text", ["", "[]", "{", '{"version": NaN}', "[" * 100_000, "\xff"])
def test_a_contract_that_is_no_contract_is_refused(tmp_path: Path, text: str) -> None:
    write_folder(tmp_path / "m", weights())
    (tmp_path / "m" / "contract.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError, match=r"contract\.json is damaged"):
        Seq2Seq(tmp_path / "m")


def test_a_contract_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    record = write_folder(tmp_path / "m", weights())
    record["checked"] = {"x": "x" * (1 << 20)}
    (tmp_path / "m" / "contract.json").write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="larger than"):
        Seq2Seq(tmp_path / "m")


def test_a_folder_that_is_none_or_not_whole_is_refused(tmp_path: Path) -> None:
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(ArtifactError, match="is no encoder-decoder"):
            Seq2Seq(missing)
    write_folder(tmp_path / "m", weights())
    (tmp_path / "m" / "step.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"no file at .*step\.onnx"):
        Seq2Seq(tmp_path / "m")


def test_files_of_two_exports_are_not_mixed(tmp_path: Path) -> None:
    write_folder(tmp_path / "one", weights(0))
    write_folder(tmp_path / "two", weights(1))
    (tmp_path / "two" / "step.onnx").replace(tmp_path / "one" / "step.onnx")
    with pytest.raises(ArtifactError, match=r"step\.onnx' is not the file"):
        Seq2Seq(tmp_path / "one")


def _swap(ports: tuple[Any, ...], name: str, **changes: Any) -> tuple[Any, ...]:
    return tuple(dataclasses.replace(p, **changes) if p.name == name else p for p in ports)


@pytest.mark.parametrize(
    ("file", "name", "changes", "message"),
    [
        ("encoder.onnx", "src", {"batch_axis": 1, "time_axis": 0}, "src is not"),
        ("encoder.onnx", "s000", {"dims": ("batch", 4)}, "s000 does not fit|differ in s000"),
        (
            "step.onnx",
            "s000_out",
            {"dims": ("batch", 4)},
            "s000_out does not fit|differ in s000_out",
        ),
        (
            "step.onnx",
            "logits",
            {"dims": ("batch", 4)},
            "vocabulary_size is not 4|differ in logits",
        ),
    ],
)
def test_graphs_that_do_not_fit_each_other_are_refused(
    tmp_path: Path, file: str, name: str, changes: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "m"
    record = write_folder(folder, weights())
    graph = onnx.load(folder / file)
    entry = graph.metadata_props[0]
    contract = Contract.from_json(entry.value)
    changed = dataclasses.replace(
        contract,
        inputs=_swap(contract.inputs, name, **changes),
        outputs=_swap(contract.outputs, name, **changes),
    )
    assert entry.key == METADATA_KEY
    entry.value = changed.to_json()
    onnx.save(graph, folder / file)
    record["fingerprints"] = attending.fingerprints(folder)
    (folder / "contract.json").write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match=message):
        Seq2Seq(folder)


def test_neither_torch_nor_onnx_is_needed(folder: Path, model: Seq2Seq) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnx_ir', 'onnxscript'): sys.modules[name] = None\n"
        "from rnnx_runtime import Seq2Seq\n"
        f"ids, scores = Seq2Seq({str(folder)!r}).generate([[1, 2, 3]], beam=2)\n"
        "print(ids[0].tolist(), scores.tolist())"
    )
    environment = {"PYTHONPATH": str(Path(rnnx_runtime.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    ids, scores = model.generate([[1, 2, 3]], beam=2)
    assert result.stdout.strip() == f"{ids[0].tolist()} {scores.tolist()}"

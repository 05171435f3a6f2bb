from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from artifacts import gru_artifact
from rnnx_runtime import ArtifactError, Contract, Port, State, load_contract
from rnnx_runtime.contract import DTYPES, MAX_BYTES, MAX_PORTS, METADATA_KEY
from running_sums import running_sum

names = st.text(min_size=1, max_size=8)
sizes = st.integers(0, 9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@st.composite
def ports(draw: st.DrawFn) -> Port:
    dims = draw(st.lists(sizes | names, min_size=2, max_size=4))
    axes = st.none() | st.integers(0, len(dims) - 1)
    batch_axis, time_axis = draw(
        st.tuples(axes, axes).filter(lambda a: a[0] is None or a[0] != a[1])
    )
    return Port(
        draw(names),
        draw(st.sampled_from(DTYPES)),
        tuple(dims),
        batch_axis,
        time_axis,
        delay=draw(st.integers(0, 100)),
        num_embeddings=draw(st.none() | st.integers(1, 10**6)),
    )


@st.composite
def states(draw: st.DrawFn, name: str) -> State:
    rest = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=2)))
    dtype = draw(st.sampled_from(DTYPES))
    initial = draw(st.none() | arrays.arrays(dtype, rest))
    first = draw(st.just("batch") | st.just(1))
    return State(name, dtype, (first, *rest), draw(names), draw(names), draw(sizes), initial)


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    listed = st.lists(ports(), max_size=3, unique_by=lambda port: port.name).map(tuple)
    return Contract(
        inputs=draw(listed),
        outputs=draw(listed),
        states=tuple(draw(states(f"s{i:03}")) for i in range(draw(st.integers(0, 3)))),
        streaming=draw(st.booleans()),
        operators=draw(st.dictionaries(names, sizes, max_size=3)),
        fingerprint=draw(st.text(max_size=8)),
        sample_rate=draw(st.none() | st.floats(1e-3, 1e6)),
        labels=draw(st.none() | st.lists(names, max_size=3).map(tuple)),
        source=draw(st.dictionaries(names, st.integers() | names, max_size=3)),
        quantization=draw(st.none() | st.just({"level": "int8", "snr_db": {"y": 41.5}})),
        checked=draw(st.none() | st.just({"max_abs_difference": 1e-7})),
    )


@given(contracts())
def test_json_round_trip_keeps_everything(contract: Contract) -> None:
    read = Contract.from_json(contract.to_json())
    assert read == contract
    for state, other in zip(read.states, contract.states, strict=True):
        assert (state.initial is None) == (other.initial is None)
        if state.initial is not None and other.initial is not None:
            assert state.initial.dtype == other.initial.dtype
            assert state.initial.shape == other.initial.shape
            assert state.initial.tobytes() == other.initial.tobytes()


@given(st.text() | json_values.map(json.dumps))
def test_any_other_text_is_an_artifact_error(text: str) -> None:
    with pytest.raises(ArtifactError, match="damaged"):
        Contract.from_json(text)


@given(contracts(), json_values, st.data())
def test_a_contract_with_any_value_replaced_is_read_or_refused(
    contract: Contract, value: Any, data: st.DataObject
) -> None:
    record = json.loads(contract.to_json())
    place: Any = record
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = value
    try:
        read = Contract.from_json(json.dumps(record))
    except ArtifactError:
        return
    assert Contract.from_json(read.to_json()) == read


PORT = {"name": "x", "dtype": "float32", "dims": ["batch", "time", 3]}
STATE = {"name": "s000", "dtype": "float32", "dims": ["batch", 2]}


@pytest.mark.parametrize(
    ("field", "lie"),
    [
        ("version", 2),
        ("version", None),
        ("inputs", {"x": PORT}),
        ("inputs", [{**PORT, "dtype": "complex64"}]),
        ("inputs", [{**PORT, "dtype": "object"}]),
        ("inputs", [{**PORT, "batch_axis": 3}]),
        ("inputs", [{**PORT, "batch_axis": 1, "time_axis": 1}]),
        ("inputs", [{**PORT, "time_axis": True}]),
        ("inputs", [{**PORT, "delay": -1}]),
        ("inputs", [{**PORT, "num_embeddings": 0}]),
        ("inputs", [{**PORT, "dims": [-1, 3]}]),
        ("inputs", [{**PORT, "dims": [1 << 20, 1 << 20]}]),
        ("inputs", [{**PORT, "stride": 2}]),
        ("inputs", [PORT, PORT]),
        ("inputs", [{**PORT, "name": str(i)} for i in range(MAX_PORTS + 1)]),
        ("states", [{**STATE, "dims": []}]),
        ("states", [{**STATE, "dims": ["batch", "hidden"]}]),
        ("states", [{**STATE, "initial": "not base64"}]),
        ("states", [{**STATE, "initial": "AAAAAA=="}]),
        ("states", [{**STATE, "name": "s001"}, STATE]),
        ("streaming", "yes"),
        ("sample_rate", 0),
        ("sample_rate", float("nan")),
        ("sample_rate", float("inf")),
        ("operators", {"GRU": "many"}),
        ("labels", "abc"),
        ("checked", []),
    ],
)
def test_a_lie_is_an_artifact_error(field: str, lie: object) -> None:
    record = json.loads(Contract((), ()).to_json())
    with pytest.raises(ArtifactError, match="damaged") as caught:
        Contract.from_json(json.dumps(record | {field: lie}))
    assert caught.value.hint


def test_an_oversized_contract_is_not_even_parsed() -> None:
    with pytest.raises(ArtifactError, match="more than"):
        Contract.from_json("[" * (MAX_BYTES + 1))


def test_the_contract_is_read_from_the_file(tmp_path: Path) -> None:
    written = gru_artifact(tmp_path / "gru.onnx")
    assert load_contract(tmp_path / "gru.onnx") == written


def test_a_file_that_is_no_artifact_is_refused(tmp_path: Path) -> None:
    whole = tmp_path / "gru.onnx"
    gru_artifact(whole)
    (tmp_path / "text.onnx").write_text("not ONNX")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "cut.onnx").write_bytes(whole.read_bytes()[:-100])
    for name in ("missing.onnx", "text.onnx", "empty.onnx", "cut.onnx", "."):
        with pytest.raises(ArtifactError) as caught:
            load_contract(tmp_path / name)
        assert caught.value.hint


def test_onnx_without_a_contract_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "plain.onnx"
    running_sum(path)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="carries no rnnx contract") as caught:
        load_contract(path)
    assert "rnnx export" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        ({"inputs": (Port("z", "float32", ("batch", "time", 3), 0, 1),)}, "x, z"),
        ({"inputs": (Port("x", "float64", ("batch", "time", 3), 0, 1),)}, "inputs differ in x"),
        ({"inputs": (Port("x", "float32", ("time", 3), None, 0),)}, "inputs differ in x"),
        ({"inputs": (Port("x", "float32", ("batch", "time", 9), 0, 1),)}, "inputs differ in x"),
        ({"outputs": (Port("y", "float32", ("batch", "time", 9), 0, 1),)}, "outputs differ in y"),
        ({"states": (State("s000", "float32", ("batch", 9)),)}, "s000_in"),
        ({"states": (State("s000", "float32", ("batch", 1 << 28)),)}, "s000_in"),
        ({"states": ()}, "s000_in"),
    ],
)
def test_a_contract_of_another_graph_is_refused(
    tmp_path: Path, lie: dict[str, Any], named: str
) -> None:
    path = tmp_path / "gru.onnx"
    contract = dataclasses.replace(gru_artifact(path), **lie)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=named):
        load_contract(path)


def test_start_states_are_the_initial_values_for_every_sequence() -> None:
    initial = np.array([1.5, -2.0], np.float32)
    state = State("s000", "float32", ("batch", 2), initial=initial)
    assert np.array_equal(state.start(batch=3), [initial] * 3)
    assert np.array_equal(State("s000", "float32", (1, 2)).start(batch=1), [[0, 0]])


def test_an_axis_of_unknown_size_is_named() -> None:
    port = Port("x", "float32", ("batch", "time", "bands"), 0, 1)
    with pytest.raises(ArtifactError, match="'bands'"):
        port.shape(batch=1, frames=1)

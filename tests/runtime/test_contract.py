from __future__ import annotations

import dataclasses
import json
import math
from fractions import Fraction
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
from rnnx_runtime.count import Count
from running_sums import running_sum

names = st.text(min_size=1, max_size=8)
sizes = st.integers(0, 9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


rates = st.tuples(st.integers(1, 6), st.integers(1, 6)).map(lambda pair: Fraction(*pair))
addends = st.integers(-20, 20)


@st.composite
def timings(draw: st.DrawFn, rate: Fraction) -> dict[str, Any]:
    """Where a port's frames come so often as `rate` says."""
    step = {"multiplier": rate.numerator, "divisor": rate.denominator}
    count, length = (Count().then(addend=draw(addends), **step) for _ in range(2))
    return {
        "stride": 1 / rate,
        "count": count.least(Count().then(addend=draw(addends), **step)),
        "length": length,
        "skip": draw(sizes),
        "lookahead": draw(addends),
        "receptive_field": draw(st.none() | st.integers(1, 99)),
    }


@st.composite
def ports(draw: st.DrawFn, rate: Fraction = Fraction(1)) -> Port:
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
        counts_frames=draw(st.booleans()),
        **draw(timings(rate)),
    )


@st.composite
def masks(draw: st.DrawFn, name: str, rate: Fraction) -> Port:
    dims = ("frames", *(1,) * draw(st.integers(0, 3)))
    return Port(name, "bool", dims, time_axis=0, **draw(timings(rate)))


@st.composite
def states(draw: st.DrawFn, name: str) -> State:
    rest = tuple(draw(st.lists(st.integers(0, 4), min_size=1, max_size=2)))
    dtype = draw(st.sampled_from(DTYPES))
    initial = draw(st.none() | arrays.arrays(dtype, rest))
    first = draw(st.just("batch") | st.just(1))
    return State(
        name,
        dtype,
        (first, *rest),
        draw(names),
        draw(names),
        draw(sizes),
        initial,
        fill=draw(st.sampled_from([0.0, 1.0, *([-math.inf, 0.5] if "float" in dtype else [])])),
        time_axis=draw(st.none() | st.integers(1, len(rest))),
        start_frames=draw(sizes),
    )


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    rate = draw(rates)
    multiple = rate.denominator * draw(st.integers(1, 9))
    fixed = multiple * 200 if draw(st.booleans()) else None
    listed = st.lists(ports(rate), max_size=3, unique_by=lambda port: port.name).map(tuple)
    return Contract(
        inputs=draw(listed),
        outputs=draw(listed),
        masks=tuple(draw(masks(f"mask{i:03}", rate)) for i in range(draw(st.integers(0, 2)))),
        # Every count has come to something by then.
        first_chunk=fixed or draw(st.integers(200, 300)),
        chunk_multiple=fixed or multiple,
        chunk=fixed,
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
MASK = {"name": "mask000", "dtype": "bool", "dims": ["time", 1], "time_axis": 0}
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
        ("inputs", [{**PORT, "stride": "0"}]),
        ("inputs", [{**PORT, "stride": "-1"}]),
        ("inputs", [{**PORT, "stride": "1/0"}]),
        ("inputs", [{**PORT, "stride": "1e999999999"}]),
        ("inputs", [{**PORT, "stride": "0.5"}]),
        ("inputs", [{**PORT, "count": [[[1, 0, 0]]]}]),
        ("inputs", [{**PORT, "count": []}]),
        ("inputs", [{**PORT, "length": [[[1, 0]]]}]),
        ("inputs", [{**PORT, "length": 5}]),
        ("inputs", [{**PORT, "skip": -1}]),
        ("inputs", [{**PORT, "lookahead": 0.5}]),
        ("inputs", [{**PORT, "receptive_field": "all"}]),
        ("masks", [PORT]),
        ("masks", [{**MASK, "dtype": "float32"}]),
        ("masks", [{**MASK, "dims": ["time", 2]}]),
        ("masks", [{**MASK, "dims": [1, "time"], "time_axis": 1}]),
        ("masks", [{**MASK, "batch_axis": 1}]),
        ("masks", [MASK, MASK]),
        ("first_chunk", 0),
        ("first_chunk", True),
        ("chunk_multiple", 0),
        ("chunk_multiple", 1.5),
        ("chunk", 0),
        ("inputs", [PORT, PORT]),
        ("inputs", [{**PORT, "name": str(i)} for i in range(MAX_PORTS + 1)]),
        ("states", [{**STATE, "dims": []}]),
        ("states", [{**STATE, "dims": ["batch", "hidden"]}]),
        ("states", [{**STATE, "initial": "not base64"}]),
        ("states", [{**STATE, "initial": "AAAAAA=="}]),
        ("states", [{**STATE, "name": "s001"}, STATE]),
        ("states", [{**STATE, "fill": float("nan")}]),
        ("states", [{**STATE, "fill": "0"}]),
        ("states", [{**STATE, "dtype": "uint8", "fill": -1.0}]),
        ("states", [{**STATE, "dtype": "bool", "fill": 0.5}]),
        ("states", [{**STATE, "dtype": "int64", "fill": float("-inf")}]),
        ("states", [{**STATE, "time_axis": 0}]),
        ("states", [{**STATE, "time_axis": 2}]),
        ("states", [{**STATE, "time_axis": 1, "start_frames": -1}]),
        ("states", [{**STATE, "time_axis": 1, "start_frames": 1 << 28}]),
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


@pytest.mark.parametrize(
    "lie",
    [
        {"first_chunk": 1 << 40},
        {"chunk_multiple": 1 << 40},
        {"chunk_multiple": 3},  # two frames in, one out
        {"stride": "4"},
        {"count": [[[1, 0, 1]]]},
        {"count": [[[1, 0, 2]], [[1, 0, 4]]]},
        {"count": [[[1, -(1 << 30), 2]]]},  # nothing would ever come out
        {"count": [[[1, 1 << 30, 2]]]},
        {"count": [[[1, 0, 1 << 40], [1 << 39, 0, 1]]]},
        {"length": [[[1, 1 << 30, 2]]]},  # the end would never come
        {"length": [[[3, 0, 1]]]},
    ],
)
@pytest.mark.parametrize("kind", ["outputs", "masks"])
def test_counts_by_which_a_stream_would_not_end_are_refused(kind: str, lie: dict[str, Any]) -> None:
    half = [[[1, 0, 2]]]
    port = {**MASK, "stride": "2", "count": half, "length": half}
    record = json.loads(Contract((), (), streaming=True).to_json())
    record |= {"first_chunk": 2, "chunk_multiple": 2}
    Contract.from_json(json.dumps(record | {kind: [port]}))
    chunks = {key: value for key, value in lie.items() if key in record}
    damaged = record | chunks | {kind: [port | {k: v for k, v in lie.items() if k not in chunks}]}
    with pytest.raises(ArtifactError, match="damaged"):
        Contract.from_json(json.dumps(damaged))


def test_an_output_frame_sees_the_input_frames_of_its_window() -> None:
    port = Port("y", "float32", ("t",), stride=Fraction(2), lookahead=1, receptive_field=3)
    assert [port.sees(frame) for frame in range(3)] == [(-1, 1), (1, 3), (3, 5)]
    assert Port("y", "float32", ("t",), receptive_field=None).sees(7) == (0, 7)


def test_a_cache_starts_with_frames_of_its_own_number() -> None:
    state = State("s000", "float32", ("batch", 5, 2), fill=-1.0, time_axis=1, start_frames=3)
    assert np.array_equal(state.start(batch=2), np.full((2, 3, 2), -1))
    assert state.shape(batch=2) == (2, 5, 2)
    lowest = State("s000", "float16", ("batch", 1), fill=float(np.finfo(np.float32).min))
    assert np.array_equal(lowest.start(batch=1), [[-np.inf]])


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

"""Hostile bytes at every door end in an RnnxError, or run: no other error, no hang, no abort."""

from __future__ import annotations

import hashlib
import json
import operator
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attending
from artifacts import gru_artifact
from hostile_worker import Case, Worker, open_file, open_folder, restore
from lagging import lagging
from mutating import damaged_bytes, damaged_graphs, damaged_json
from rnnx_runtime import Model
from rnnx_runtime.contract import METADATA_KEY
from rnnx_runtime.samples import random_inputs
from rnnx_runtime.snapshot import MAGIC
from running_sums import running_sum

T = TypeVar("T")
ONNXRUNTIME = tuple(map(int, ort.__version__.split(".")[:2]))
CASES = [
    pytest.param(130, id="some"),
    pytest.param(8000, id="many", marks=pytest.mark.full),
]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    paths = [folder / name for name in ("gru.onnx", "offline.onnx", "ids.onnx")]
    gru_artifact(paths[0])
    gru_artifact(paths[1], streaming=False)
    running_sum(paths[2], outputs=("y", "total"), table=np.eye(5, 2), sample_rate=100.0)
    return [*paths, *(Path(lagging(folder, name)[1].path) for name in ("scaled", "rates"))]


def hold(worker: Worker, cases: st.SearchStrategy[Case], count: int) -> None:
    """Try that many cases; a fault is reported with the least case that shows it."""

    @settings(max_examples=count, suppress_health_check=list(HealthCheck), database=None)
    @given(cases)
    def run(case: Case) -> None:
        fault = worker.fault(case)
        assert fault is None, fault

    run()


@pytest.mark.parametrize("count", CASES)
def test_contracts(worker: Worker, artifacts: list[Path], count: int) -> None:
    hold(worker, st.sampled_from(artifacts).flatmap(hostile_contracts), count)


def hostile_contracts(path: Path) -> st.SearchStrategy[Case]:
    text = Model(path).contract.to_json()
    bytes_ = damaged_bytes(text.encode()).map(lambda data: data.decode("utf-8", "replace"))
    texts = one_in_four(bytes_, damaged_json(json.loads(text)))
    return st.builds(with_contract, st.just(path), texts, st.booleans()).map(opening)


def one_in_four(seldom: st.SearchStrategy[T], often: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return st.integers(0, 3).flatmap(lambda drawn: often if drawn else seldom)


def opening(data: bytes) -> Case:
    return Case(open_file, (data,))


def with_contract(path: Path, text: str, free: bool) -> bytes:
    """The artifact with that contract; where `free`, the graph has no sizes that contradict it."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {METADATA_KEY: text})
    ports = (*model.graph.input, *model.graph.output) if free else ()
    for dim in (dim for port in ports for dim in port.type.tensor_type.shape.dim):
        dim.dim_param = "free"
    return bytes(model.SerializeToString())


@pytest.mark.skipif(
    ONNXRUNTIME < (1, 27), reason="older onnxruntime dies of constants that are cut off"
)
@pytest.mark.parametrize("count", CASES)
def test_model_files(worker: Worker, artifacts: list[Path], count: int) -> None:
    hold(worker, st.sampled_from(artifacts).flatmap(hostile_files(artifacts)), count)


def hostile_files(artifacts: list[Path]) -> Callable[[Path], st.SearchStrategy[Case]]:
    def files(path: Path) -> st.SearchStrategy[Case]:
        whole = path.read_bytes()
        others = st.sampled_from(artifacts).map(Path.read_bytes)
        bytes_ = others.flatmap(lambda other: damaged_bytes(whole, other))
        return one_in_four(bytes_, damaged_graphs(whole)).map(opening)

    return files


@pytest.mark.parametrize("count", CASES)
def test_snapshots(worker: Worker, artifacts: list[Path], count: int) -> None:
    paths = [path for path in artifacts if Model(path).contract.streaming]
    frames = st.sampled_from([0, 1, 3, 450])
    hold(worker, st.tuples(st.sampled_from(paths), frames).flatmap(hostile_snapshots), count)


def hostile_snapshots(begun: tuple[Path, int]) -> st.SearchStrategy[Case]:
    path, frames = begun
    stream = Model(path).stream()
    stream.feed(
        random_inputs(stream.model.contract, np.random.default_rng(0), batch=1, frames=frames)
    )
    whole = stream.snapshot()
    header, arrays = opened(whole)
    headers = one_in_four(damaged_bytes(header), damaged_json(json.loads(header)).map(str.encode))
    bodies = one_in_four(damaged_bytes(arrays or b"\0"), st.just(arrays))
    damaged = one_in_four(damaged_bytes(whole), st.builds(sealed, headers, bodies))
    return damaged.map(lambda data: Case(restore, (data, path)))


def opened(whole: bytes) -> tuple[bytes, bytes]:
    """The header and the arrays of a snapshot."""
    start = len(MAGIC) + 4
    end = start + int.from_bytes(whole[start - 4 : start], "little")
    return whole[start:end], whole[end:-32]


def sealed(header: bytes, arrays: bytes) -> bytes:
    """A snapshot whose length and hash are right, whatever is in it."""
    body = MAGIC + len(header).to_bytes(4, "little") + header + arrays
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize("count", CASES)
def test_encoder_decoders(worker: Worker, tmp_path: Path, count: int) -> None:
    folder = tmp_path / "folder"
    record = attending.write_folder(folder, attending.weights())
    bytes_ = damaged_bytes(json.dumps(record).encode())
    texts = one_in_four(bytes_, damaged_json(record).map(str.encode))
    hold(worker, texts.map(lambda data: Case(open_folder, (data, folder))), count)


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (Case(os.abort, ()), "exit code -6"),
        (Case(int, ("x",)), "ValueError"),
        (Case(operator.mul, (b"x", 5 << 28)), "it took 1"),
    ],
)
def test_the_worker_sees_every_fault(worker: Worker, case: Case, fault: str) -> None:
    assert fault in str(worker.fault(case))
    assert worker.fault(Case(Model, ("none.onnx",))) is None


def test_the_worker_sees_a_hang() -> None:
    worker = Worker(hang=1)
    assert "it hangs" in str(worker.fault(Case(signal.pause, ())))
    worker.close()

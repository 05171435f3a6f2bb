"""Weights kept with four bits: what onnxruntime reads back, how small, and how near."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import nn

import rnnx
from quantizable import save_graph
from rnnx.quantization.levels import LEVELS

Array = npt.NDArray[Any]
BLOCK = 32


def read_back(path: Path, weight: Array, axis: int) -> Array:
    """The weight of a MatMul kept at int4-store, as onnxruntime widens it."""
    operands = ["x", "w"] if axis == weight.ndim - 2 else ["w", "x"]
    nodes = [helper.make_node("MatMul", operands, ["y"])]
    size = weight.shape[axis]
    shape = (size, size)
    save_graph(path, nodes, {"w": weight}, {"x": shape}, {"y": [None, None]})
    model = ir.load(path)
    change = LEVELS["int4-store"](model)
    assert change.changed == {"MatMul": 1}
    data = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.eye(size, dtype=np.float32)})
    return np.asarray(found)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(40, 60),
    features=st.integers(33, 100),
    transposed=st.booleans(),
    offset=st.sampled_from([0.0, 3.0, -1.0]),
    seed=st.integers(0, 99),
)
def test_a_block_comes_back_at_least_as_near_as_by_steps_of_its_whole_range(
    rows: int,
    features: int,
    transposed: bool,
    offset: float,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    weight = np.random.default_rng(seed).normal(offset, 1, (rows, features)).astype(np.float32)
    given_weight, axis = (weight.T, 0) if transposed else (weight, 1)
    found = read_back(tmp_path_factory.mktemp("w") / "m.onnx", given_weight, axis)
    found = found.T if transposed else found
    for start in range(0, features, BLOCK):
        block, kept = weight[:, start : start + BLOCK], found[:, start : start + BLOCK]
        low, high = np.minimum(block.min(1), 0), np.maximum(block.max(1), 0)
        step = ((high - low) / 15)[:, None]
        zero = np.rint(-low[:, None] / step)
        plain = (np.clip(np.rint(block / step) + zero, 0, 15) - zero) * step
        errors = [np.linalg.norm(each - block, axis=1) for each in (kept, plain)]
        halves = 1e-3 * np.linalg.norm(block, axis=1)  # scales are kept as float16
        assert (errors[0] <= 1.001 * errors[1] + halves).all()
        assert errors[0].sum() > 0  # four bits they are


class Net(nn.Module):
    def __init__(self, kind: str, hidden_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(200, 64)
        self.recurrent = getattr(nn, kind)(64, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 200)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.recurrent(self.embedding(x))[0])


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_streaming_net_is_six_times_smaller_and_rounds_better_by_its_data(
    tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(0)
    net, path = Net(kind, 256), tmp_path / "m.onnx"
    with torch.no_grad():
        net.embedding.weight[:, 8:] *= 0.1  # most of what the layer meets lies in few directions
    rnnx.export(net, (torch.randint(0, 200, (2, 9)),), path, streaming=True)
    ids = np.random.default_rng(0).integers(0, 200, (1, 600))
    blind = rnnx.quantize(path, tmp_path / "blind.onnx", level="int4-store")
    seen = rnnx.quantize(path, tmp_path / "seen.onnx", level="int4-store", calibration=ids)
    assert seen.ratio > 6
    assert seen.invariance == "all"
    assert any("rounded each by itself" in note for note in blind.notes)
    assert not any("rounded each by itself" in note for note in seen.notes)
    snr = [snr_db(net, tmp_path / name, ids) for name in ("blind.onnx", "seen.onnx")]
    assert snr[1] > snr[0] + 1


def test_where_only_recurrent_layers_have_four_bits_the_outputs_are_nearer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, path = Net("RNN", 64), tmp_path / "m.onnx"
    ids = np.random.default_rng(0).integers(0, 200, (1, 300))
    rnnx.export(net, (torch.from_numpy(ids),), path, streaming=True)
    levels = ("int4-store", "int4", "int8-store")
    for level in levels:
        rnnx.quantize(path, tmp_path / f"{level}.onnx", level=level, calibration=ids)
    sizes = [(tmp_path / f"{level}.onnx").stat().st_size for level in levels]
    snr = [snr_db(net, tmp_path / f"{level}.onnx", ids) for level in levels]
    assert sizes == sorted(sizes)
    assert snr[0] + 2 < snr[1] < snr[2] - 2


def snr_db(net: nn.Module, path: Path, ids: Array) -> float:
    """Against torch."""
    with torch.no_grad():
        wanted = net(torch.from_numpy(ids)).numpy()
    found = rnnx.Stream(path).feed(ids)
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


def test_its_operators_are_folded_when_the_file_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, small = tmp_path / "m.onnx", tmp_path / "s.onnx"
    rnnx.export(Net("GRU", 64), (torch.randint(0, 200, (2, 9)),), path, streaming=True)
    rnnx.quantize(path, small, level="int4-store")
    counts = []
    for name in (path, small):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        ort.InferenceSession(name, options, providers=["CPUExecutionProvider"])
        counts.append(len(ir.load(tmp_path / "optimized.onnx").graph))
    assert counts[0] == counts[1]

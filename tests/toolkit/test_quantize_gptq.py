"""Weights of four bits: what the kernel computes, what GPTQ gains, what it is told of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rnnx
from exportable import torch_run
from rnnx.quantization.gptq import gptq
from rnnx.quantization.levels import int4
from rnnx.quantization.observing import hessians
from rnnx.quantization.rows import Blocked, packed_blocks, round_blocks

Array = Any
FEATURES, HIDDEN = 10, 24


def widened(blocked: Blocked, bits: int, features: int) -> Array:
    """The weights that codes stand for, by the operator's definition, in float64."""
    codes, zeros = (unpacked(part, bits) for part in (blocked.codes, blocked.zeros))
    zeros = zeros[:, : codes.shape[1]]
    whole = (codes.astype(np.float64) - zeros[..., None]) * blocked.scales[..., None]
    return whole.reshape(len(codes), -1)[:, :features]


def unpacked(codes: Array, bits: int) -> Array:
    if bits == 8:
        return codes
    return np.stack([codes & 15, codes >> 4], -1).reshape(*codes.shape[:-1], -1)


@settings(max_examples=40)
@given(
    bits=st.sampled_from([4, 8]),
    block_size=st.sampled_from([16, 32, 128]),
    rows=st.integers(1, 5),
    features=st.integers(1, 70),
    seed=st.integers(0, 99),
)
def test_each_weight_is_within_half_a_step(
    bits: int, block_size: int, rows: int, features: int, seed: int
) -> None:
    weight = np.random.default_rng(seed).normal(size=(rows, features)).astype(np.float32)
    weight[:, ::3] = 0
    blocked = packed_blocks(round_blocks(weight, bits, block_size), bits)
    step = np.repeat(blocked.scales, block_size, 1)[:, :features]
    found = widened(blocked, bits, features)
    assert (np.abs(found - weight) <= step * 1.001).all()  # the code of zero is rounded as well
    assert not found[:, ::3].any()  # zero stays zero


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("features", [16, 40, 70])
def test_onnxruntime_reads_the_codes_so(bits: int, features: int) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(6, features)).astype(np.float32)
    x = rng.normal(size=(3, features)).astype(np.float32)
    blocked = packed_blocks(round_blocks(weight, bits, 32), bits)
    attributes = {"K": features, "N": 6, "bits": bits, "block_size": 32, "accuracy_level": 4}
    names = ["codes", "scales", "zeros"]
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", *names], ["y"], domain="com.microsoft", **attributes
    )
    shape = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "g",
        [shape("x", 1, ["batch", features])],
        [shape("y", 1, ["batch", 6])],
        [onnx.numpy_helper.from_array(a, n) for n, a in zip(names, blocked, strict=True)],
    )
    opsets = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = x @ widened(blocked, bits, features).T
    found = session.run(None, {"x": x})[0]
    assert np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max()  # int8 activations


def correlated(frames: int, features: int) -> Array:
    """Inputs of which few directions carry most, as layers' are."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(features, features)) * 0.7 ** np.arange(features)
    return rng.normal(size=(frames, features)) @ mixing.T


@pytest.mark.parametrize("features", [32, 45])
def test_gptq_changes_outputs_less_than_rounding_alone(features: int) -> None:
    weight = np.random.default_rng(1).normal(size=(20, features)).astype(np.float32)
    x = correlated(500, features)
    near, best = (
        widened(packed_blocks(blocked, 4), 4, features)
        for blocked in (round_blocks(weight, 4, 16), gptq(weight, x.T @ x, 4, 16))
    )
    rounded, compensated = (np.square(x @ (w - weight).T).sum() for w in (near, best))
    assert compensated < 0.5 * rounded
    # Against a planted fault: what makes up for errors in other inputs gains nothing.
    wrong = widened(packed_blocks(gptq(weight, np.eye(features), 4, 16), 4), 4, features)
    assert np.square(x @ (wrong - weight).T).sum() > 0.9 * rounded


def test_inputs_that_are_always_zero_are_no_matter() -> None:
    weight = np.random.default_rng(1).normal(size=(4, 32)).astype(np.float32)
    x = correlated(100, 32)
    x[:, 5] = 0
    for hessian in (x.T @ x, np.zeros((32, 32))):
        assert np.isfinite(widened(packed_blocks(gptq(weight, hessian, 4, 16), 4), 4, 32)).all()


class Net(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.recurrent = getattr(nn, kind)(FEATURES, HIDDEN, num_layers=2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.recurrent(x)[0]


@pytest.fixture(scope="module", params=["GRU", "LSTM", "RNN"])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    module, path = Net(request.param), tmp_path_factory.mktemp("int4") / "net.onnx"
    rnnx.export(module, (torch.randn(2, 9, FEATURES),), path, streaming=True)
    return module, path


def test_what_is_observed_is_what_the_layers_meet(exported: tuple[nn.Module, Path]) -> None:
    module, path = exported
    x = np.random.default_rng(2).normal(size=(3, 30, FEATURES)).astype(np.float32)
    found = hessians(path, rnnx.load_contract(path), [{"x": x}])
    y = torch_run(module, torch.from_numpy(x))[0].astype(np.float64)
    frames, before = x.reshape(-1, FEATURES).astype(np.float64), y[:, :-1].reshape(-1, HIDDEN)
    names = sorted(found)
    assert len(names) == 4  # W and R of two layers
    np.testing.assert_allclose(found[names[1]], frames.T @ frames, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[names[2]], before.T @ before, rtol=1e-4, atol=1e-4)


def test_calibration_data_makes_four_bits_better(
    exported: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(int4, "BREAK_EVEN", {"GRU": 1, "LSTM": 1, "RNN": 1})
    _, path = exported
    x = correlated(400, FEATURES).astype(np.float32).reshape(4, 100, FEATURES)
    x /= np.abs(x).max()
    calibrated = rnnx.quantize(path, tmp_path / "gptq.onnx", level="int4", calibration=x)
    rnnx.quantize(path, tmp_path / "near.onnx", level="int4")
    assert not any("each by itself" in note for note in calibrated.notes)
    wanted, best, near = (
        rnnx.Model(file).run(x) for file in (path, tmp_path / "gptq.onnx", tmp_path / "near.onnx")
    )
    assert np.square(best - wanted).sum() < np.square(near - wanted).sum()
    assert 10 * np.log10(np.square(wanted).sum() / np.square(best - wanted).sum()) > 15

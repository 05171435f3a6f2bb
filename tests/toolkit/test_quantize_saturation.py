"""int8 sums stay exact on x86 CPUs that add two products in 16 bits; held against plain integers.

onnxruntime multiplies uint8 activations with int8 weights; without VNNI the products of features 2k
and 2k + 1 are added in 16 bits, where a greater sum than 32767 is cut off.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper, numpy_helper

from quantizable import offline_artifact, value
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.rows import computing_scales, to_codes

Array = npt.NDArray[Any]
OFF = 0.25  # of a step of the weights: a sum that was cut off is off by half a step at least
WEIGHTS = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=2, max_dims=3, max_side=9),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


def can_saturate(codes: Array) -> bool:
    """Whether activations exist for which the sums of `codes` `[..., features]` are cut off."""
    for row in codes.reshape(-1, codes.shape[-1]).tolist():
        for pair in (row[start : start + 2] for start in range(0, len(row), 2)):
            highest = 255 * sum(code for code in pair if code > 0)
            lowest = 255 * sum(code for code in pair if code < 0)
            if highest > 2**15 - 1 or lowest < -(2**15):
                return True
    return False


@given(WEIGHTS)
def test_rows_to_compute_with_cannot_saturate(array: Array) -> None:
    scale = computing_scales(array)
    codes = to_codes(array, scale)
    assert not can_saturate(codes)
    error = np.abs(codes * scale.astype(np.float64) - array)
    assert (error <= 0.5001 * scale).all()


@given(WEIGHTS)
def test_they_are_never_coarser_than_seven_bits(array: Array) -> None:
    seven_bits = np.abs(array).max(-1, keepdims=True) / np.float32(64)
    assert (computing_scales(array) <= np.maximum(seven_bits, np.finfo(np.float32).tiny)).all()


@given(WEIGHTS, st.floats(1, 100, width=32))
def test_a_coarser_scale_than_its_own_cannot_saturate_either(array: Array, factor: float) -> None:
    """Two products that are added share their scales."""
    assert not can_saturate(to_codes(array, computing_scales(array) * np.float32(factor)))


def test_what_int8_writes_cannot_saturate(tmp_path: Path) -> None:
    offline_artifact(tmp_path / "m.onnx", "LSTM", features=17, hidden_size=33)
    model = ir.load(tmp_path / "m.onnx")
    LEVELS["int8"](model)
    packed = [v.const_value.numpy() for v in model.graph.initializers.values() if v.const_value]
    codes = [each for each in packed if each.dtype == np.int8 and each.any()]
    assert len(codes) == 2
    assert not any(can_saturate(each.swapaxes(-1, -2)) for each in codes)
    assert any(np.abs(each).max() > 64 for each in codes)


def _by_matmul(codes: Array, x: Array) -> Array:
    weights = {"codes": codes.T, "scale": np.float32(1)}
    node = helper.make_node(
        "DynamicQuantizeMatMul", ["x", "codes", "scale"], ["y"], domain="com.microsoft"
    )
    return _run([node], weights, x)


def _by_lstm(codes: Array, x: Array, *, state: bool = False) -> Array:
    """The sums as the candidate of an LSTM whose input and output gates are open."""
    rows, features = codes.shape
    scale = 1 / (64 * features)
    bias = np.zeros((1, 8 * rows), np.float32)
    bias[:, : 2 * rows] = 50
    factors = {"W": (codes, x), "R": (np.zeros((rows, rows), np.int8), x[:, :1] * np.zeros(rows))}
    if state:
        factors = {"W": factors["R"], "R": factors["W"]}
    weights: dict[str, Array] = {"B": bias, "h0": factors["R"][1][None].astype(np.float32)}
    for name, (each, _) in factors.items():
        wide = np.concatenate([np.zeros((3 * rows, each.shape[1]), np.int8), each])
        weights |= {
            name: wide.T[None],
            f"{name}s": np.full((1, 4 * rows), scale, np.float32),
            f"{name}z": np.zeros((1, 4 * rows), np.int8),
        }
    names = ["x", "W", "R", "B", "", "h0", "", "", "Ws", "Wz", "Rs", "Rz"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", names, ["y"], domain="com.microsoft", hidden_size=rows
    )
    h = _run([node], weights, factors["W"][1][None].astype(np.float32))[0, 0]
    return np.asarray(np.arctanh(np.arctanh(h.astype(np.float64))) / scale)


def _by_lstm_state(codes: Array, x: Array) -> Array:
    return _by_lstm(codes, x, state=True)


def _run(nodes: list[onnx.NodeProto], weights: dict[str, Array], x: Array) -> Array:
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", x.shape)],
        [value("y", [f"d{axis}" for axis in range(4 if x.ndim == 3 else 2)])],
        [numpy_helper.from_array(np.ascontiguousarray(a), name) for name, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


KERNELS: dict[str, Callable[[Array, Array], Array]] = {
    "DynamicQuantizeMatMul": _by_matmul,
    "DynamicQuantizeLSTM, frame": _by_lstm,
    "DynamicQuantizeLSTM, state": _by_lstm_state,
}


def _square(features: int) -> tuple[Array, Array]:
    """Weights of few signs `[features, features]`, and the activations that sum up most of each."""
    weights = np.random.default_rng(0).uniform(0.5, 1, (features, features)).astype(np.float32)
    weights[::2] *= -1
    weights[1::4, ::3] *= -1
    return weights, np.concatenate([weights > 0, weights < 0]).astype(np.float32)


def _worst_error(kernel: Callable[[Array, Array], Array], codes: Array, x: Array) -> float:
    """The greatest error of any sum, in steps; each batch of 1, and all at once."""
    exact = x.astype(np.int64) @ codes.astype(np.int64).T
    alone = np.concatenate([kernel(codes, each[None]) for each in x[:: len(x) // 3]])
    errors = [kernel(codes, x) - exact, alone - exact[:: len(x) // 3]]
    return max(float(np.abs(each).max()) for each in errors)


@pytest.mark.parametrize("features", [6, 33, 128])
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_kernels_add_them_up_exactly(kernel: str, features: int) -> None:
    weights, x = _square(features)
    codes = to_codes(weights, computing_scales(weights))
    assert _worst_error(KERNELS[kernel], codes, x) < OFF


def _adds_in_16_bits() -> bool:
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return not {"avx512_vnni", "avx_vnni"} & set(flags)


@pytest.mark.skipif(not _adds_in_16_bits(), reason="this CPU does not add int8 products in 16 bits")
@pytest.mark.parametrize("features", [6, 33, 128])
@pytest.mark.parametrize("kernel", KERNELS)
def test_codes_of_full_range_are_caught(kernel: str, features: int) -> None:
    weights, x = _square(features)
    codes = to_codes(weights, np.abs(weights).max(1, keepdims=True) / 127)
    assert can_saturate(codes)
    assert _worst_error(KERNELS[kernel], codes, x) > OFF

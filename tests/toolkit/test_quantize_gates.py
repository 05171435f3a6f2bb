"""GRU and RNN in int8: near float32, the same however the sequence is cut, quicker by a graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import rnnx
from exportable import torch_run
from quantizable import recurrent_weights, save_graph
from rnnx.quantization.levels import LEVELS, int8, int8_block
from rnnx_exporters.artifact import load_graph

LEAST_SNR_DB = 33.0  # int8 with seven bits of weight
FEATURES, HIDDEN = 12, 20


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are computed in int8, too."""
    monkeypatch.setattr(int8, "BREAK_EVEN", ALL)
    monkeypatch.setattr(int8_block, "BREAK_EVEN", ALL)


class Net(nn.Module):
    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.recurrent = getattr(nn, kind)(FEATURES, HIDDEN, batch_first=True, **options)

    def forward(self, x: torch.Tensor) -> Any:
        y, states = self.recurrent(x)
        return y, states[0] if isinstance(states, tuple) else states


CELLS = {
    "GRU": ("GRU", {"num_layers": 2}, "int8"),
    "GRU without bias": ("GRU", {"bias": False}, "int8"),
    "RNN": ("RNN", {"num_layers": 2}, "int8"),
    "RNN, relu": ("RNN", {"nonlinearity": "relu"}, "int8"),
    "GRU in blocks": ("GRU", {"num_layers": 2}, "int8-block"),
    "LSTM in blocks": ("LSTM", {"num_layers": 2}, "int8-block"),
    "RNN in blocks": ("RNN", {"bias": False}, "int8-block"),
}
ALL = {"GRU": 1, "LSTM": 1, "RNN": 1}


def made(folder: Path, kind: str, options: dict[str, Any], *, streaming: bool) -> Path:
    torch.manual_seed(1)
    path = folder / "float.onnx"
    net = Net(kind, **options)
    rnnx.export(net, (torch.randn(2, 9, FEATURES),), path, streaming=streaming)
    return path


@pytest.fixture(scope="module", params=CELLS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[rnnx.Model, rnnx.Model]:
    folder = tmp_path_factory.mktemp("gates")
    kind, options, level = CELLS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int8, "BREAK_EVEN", ALL)
        patch.setattr(int8_block, "BREAK_EVEN", ALL)
        path = made(folder, kind, options, streaming=True)
        report = rnnx.quantize(path, folder / "small.onnx", level=level)
    assert report.changed == {kind: options.get("num_layers", 1)}
    return rnnx.Model(path), rnnx.Model(folder / "small.onnx")


def snr_db(found: Any, wanted: Any) -> float:
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 3])
def test_it_is_near_float32(pair: tuple[rnnx.Model, rnnx.Model], batch: int) -> None:
    x = noise(batch, 40, FEATURES)
    wanted, found = (model.run(x) for model in pair)
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        assert snr_db(found[name], value) > LEAST_SNR_DB, name


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_where_it_is_cut_changes_no_bit(
    pair: tuple[rnnx.Model, rnnx.Model], lengths: list[int], seed: int
) -> None:
    small, x = pair[1], noise(1, sum(lengths), FEATURES, seed=seed)
    x[:, : len(lengths)] *= 8  # a loud beginning must not reach into other frames' scales
    stream, start, pieces = small.stream(), 0, []
    for length in lengths:
        pieces.append(stream.feed(x[:, start : start + length]))
        start += length
    whole = small.run(x)
    port = small.contract.outputs[0].name
    assert np.array_equal(np.concatenate([piece[port] for piece in pieces], 1), whole[port])


@pytest.mark.parametrize("pair", [name for name in CELLS if "blocks" in name], indirect=True)
def test_in_blocks_no_neighbour_changes_a_bit(pair: tuple[rnnx.Model, rnnx.Model]) -> None:
    small, x = pair[1], noise(3, 20, FEATURES)
    x[1] *= 50
    port = small.contract.outputs[0].name
    whole = small.run(x)[port]
    assert all(np.array_equal(small.run(x[i : i + 1])[port], whole[i : i + 1]) for i in range(3))


def test_a_step_has_no_loop(pair: tuple[rnnx.Model, rnnx.Model]) -> None:
    small = pair[1]
    assert small.contract.operators["Scan"] >= 1
    assert not small.contract.operators.keys() & {"GRU", "LSTM", "RNN"}
    assert small.step is not None
    assert small.step.operators < sum(small.contract.operators.values()) * 2


@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_both_directions(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind, {"bidirectional": True, "num_layers": 2}, streaming=False)
    report = rnnx.quantize(path, tmp_path / "small.onnx", level="int8")
    assert report.changed == {kind: 2}
    torch.manual_seed(1)
    x = torch.from_numpy(noise(2, 11, FEATURES))
    found = rnnx.Model(tmp_path / "small.onnx").run(x.numpy())
    names = [port.name for port in rnnx.load_contract(path).outputs]
    for name, wanted in zip(
        names, torch_run(Net(kind, bidirectional=True, num_layers=2), x), strict=True
    ):
        assert snr_db(found[name], wanted) > LEAST_SNR_DB, name


Dims = tuple[int | str, ...]


def raw(path: Path, operator: str, *inputs: str, nodes: int = 1, **attributes: Any) -> None:
    """Nodes that torch does not export, one behind the other, all with the same weights."""
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    weights = recurrent_weights(operator, HIDDEN, HIDDEN, directions=directions)
    weights |= {"one": np.array([1])} if nodes > 1 else {}
    made, source = [], "x"
    for number in range(nodes):
        last = number == nodes - 1
        names = ["y" if last else f"y{number}", "h" if last else ""]
        taken = [source, "W", "R", "B", *inputs]
        made.append(
            onnx.helper.make_node(
                operator, taken, names, name=f"n{number}", hidden_size=HIDDEN, **attributes
            )
        )
        if not last:
            source = f"x{number}"
            made.append(onnx.helper.make_node("Squeeze", [f"y{number}", "one"], [source]))
    taken_dims: dict[str, Dims] = {"x": ("time", "batch", HIDDEN)}
    if "h0" in inputs:
        taken_dims["h0"] = (directions, "batch", HIDDEN)
    given: dict[str, Dims] = {
        "y": ("time", directions, "batch", HIDDEN),
        "h": (directions, "batch", HIDDEN),
    }
    save_graph(path, made, weights, taken_dims, given)


def outputs(path: Path, batch: int = 2) -> list[Any]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    feeds = {"x": noise(13, batch, HIDDEN)}
    for node in session.get_inputs()[1:]:
        feeds[node.name] = np.tanh(noise(node.shape[0], batch, HIDDEN, seed=1))
    return session.run(None, feeds)


RAW: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "reset before the product": ("GRU", (), {"linear_before_reset": 0}),
    "reset after the product": ("GRU", ("", "h0"), {"linear_before_reset": 1}),
    "backward": ("GRU", ("", "h0"), {"direction": "reverse"}),
    "both directions": ("RNN", ("", "h0"), {"direction": "bidirectional"}),
    "tanh there, relu back": (
        "RNN",
        ("", "h0"),
        {"direction": "bidirectional", "activations": ["Tanh", "Relu"]},
    ),
    "one weight for two layers": ("GRU", (), {"nodes": 2}),
}


@pytest.mark.parametrize("case", RAW)
def test_what_onnx_can_say(tmp_path: Path, case: str) -> None:
    operator, inputs, attributes = RAW[case]
    raw(tmp_path / "float.onnx", operator, *inputs, **attributes)
    report = rnnx.quantize(tmp_path / "float.onnx", tmp_path / "small.onnx", level="int8")
    assert report.changed == {operator: attributes.get("nodes", 1)}
    wanted, found = outputs(tmp_path / "float.onnx"), outputs(tmp_path / "small.onnx")
    for value, other in zip(wanted, found, strict=True):
        assert other.shape == value.shape
        assert snr_db(other, value) > LEAST_SNR_DB


def test_a_shared_weight_is_kept_once(tmp_path: Path) -> None:
    raw(tmp_path / "float.onnx", "GRU", nodes=2)
    rnnx.quantize(tmp_path / "float.onnx", tmp_path / "small.onnx", level="int8")
    codes = [
        tensor
        for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8
    ]
    assert sum(len(tensor.raw_data) for tensor in codes) == 2 * 3 * HIDDEN * HIDDEN


LENGTHS = np.array([13, 1, 7, 12], np.int32)
RAGGED: dict[str, tuple[str, dict[str, Any], str]] = {
    "GRU": ("GRU", {}, "int8"),
    "GRU back": ("GRU", {"direction": "reverse", "linear_before_reset": 1}, "int8"),
    "GRU in both directions": ("GRU", {"direction": "bidirectional"}, "int8"),
    "RNN in both directions": ("RNN", {"direction": "bidirectional"}, "int8"),
    "LSTM in blocks": ("LSTM", {"direction": "bidirectional"}, "int8-block"),
}


@pytest.mark.parametrize("case", RAGGED)
def test_each_sequence_ends_at_its_own_length(tmp_path: Path, case: str) -> None:
    operator, attributes, level = RAGGED[case]
    raw(tmp_path / "float.onnx", operator, "lens", "h0", **attributes)
    with_lengths(tmp_path / "float.onnx")
    model = load_graph(tmp_path / "float.onnx")
    assert LEVELS[level](model).changed == {operator: 1}
    assert "Scan" in {node.op_type for node in model.graph}
    ir.save(model, tmp_path / "small.onnx")
    wanted, found = (outputs(tmp_path / name, 4) for name in ("float.onnx", "small.onnx"))
    for value, other in zip(wanted, found, strict=True):
        assert snr_db(other, value) > LEAST_SNR_DB
    for row, length in enumerate(LENGTHS):
        assert not found[0][length:, :, row].any()
        assert found[0][:length, :, row].any(-1).all()
        for other, value in zip(found, wanted, strict=True):
            assert snr_db(other[..., row, :], value[..., row, :]) > LEAST_SNR_DB - 5, row


def with_lengths(path: Path) -> None:
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(LENGTHS, "lens"))
    onnx.save(model, path)


LEFT: dict[str, Callable[[Path], None]] = {
    "clipping": lambda path: raw(path, "GRU", clip=2.0),
    "another activation": lambda path: raw(path, "RNN", activations=["Sigmoid"]),
}


@pytest.mark.parametrize("case", LEFT)
def test_what_cannot_be_computed_so_is_stored_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    LEFT[case](tmp_path / "float.onnx")
    model = load_graph(tmp_path / "float.onnx")
    change = LEVELS["int8"](model)
    assert "Scan" not in {node.op_type for node in model.graph}
    assert sum(change.changed.values()) == 1
    assert "fell to int8-store" in change.notes[0]


@pytest.mark.parametrize(("kind", "size"), int8.BREAK_EVEN.items())
def test_small_layers_are_stored_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: int
) -> None:
    monkeypatch.undo()
    for hidden, computed in ((size - 1, False), (size, True)):
        weights = recurrent_weights(kind, 4, hidden)
        node = onnx.helper.make_node(kind, ["x", "W", "R", "B"], ["y"], hidden_size=hidden)
        dims: dict[str, Dims] = {"x": ("time", "batch", 4)}
        save_graph(tmp_path / "m.onnx", [node], weights, dims, {"y": ("time", 1, "batch", hidden)})
        model = load_graph(tmp_path / "m.onnx")
        LEVELS["int8"](model)
        assert ("Scan" in {node.op_type for node in model.graph}) is computed


def test_rows_of_zeros_and_of_tiny_weights_stay_right(tmp_path: Path) -> None:
    raw(tmp_path / "float.onnx", "GRU", linear_before_reset=1)
    model = onnx.load(tmp_path / "float.onnx")
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor).copy()
        if tensor.name in "WR":
            array[:, 3], array[:, 7] = 0, array[:, 7] * 1e-7
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.save(model, tmp_path / "float.onnx")
    rnnx.quantize(tmp_path / "float.onnx", tmp_path / "small.onnx", level="int8")
    for value, other in zip(
        outputs(tmp_path / "float.onnx"), outputs(tmp_path / "small.onnx"), strict=True
    ):
        assert snr_db(other, value) > LEAST_SNR_DB

"""Steps written by hand become the native operator they are; near misses stay a Scan."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import rnnx
from cells import (
    NATIVE,
    NEAR_MISSES,
    Cell,
    CoupledPeepholes,
    ElmanOneLinear,
    ResetBeforeChunked,
)
from rnnx_exporters import recognise

RECURRENT = {"RNN", "GRU", "LSTM", "Scan"}
SIZES = ((3, 7), (1, 1), (4, 100))
DYNAMIC = {"x": {0: "batch", 1: "time"}, "h": {0: "batch"}}


class Side(nn.Module):
    """Cells side by side, each by its own name."""

    def __init__(self, cells: list[Cell]) -> None:
        super().__init__()
        self.cells = nn.ModuleDict({type(cell).__name__: cell for cell in cells})

    def forward(self, x: Tensor, h: Tensor) -> Any:
        return [cell(x, h) for cell in self.cells.values()]


def export(model: nn.Module, path: Path, features: int = 3, hidden: int = 5) -> onnx.ModelProto:
    example = (torch.randn(2, 6, features), torch.randn(2, hidden))
    rnnx.export(model, example, path, dynamic_shapes=DYNAMIC)
    return onnx.load(path)


def operators(graph: onnx.GraphProto) -> dict[str, str]:
    """For each recurrent node, or Scan, the module it came from and its operator."""
    return {node.name: node.op_type for node in graph.node if node.op_type in RECURRENT}


def worst(model: nn.Module, path: Path, features: int = 3, hidden: int = 5) -> float:
    """The largest difference to torch of any output, at all sizes; of large values, relative."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    differences = []
    for batch, frames in SIZES:
        x, h = torch.randn(batch, frames, features), torch.randn(batch, hidden)
        with torch.no_grad():
            expected = pytree.tree_leaves(model(x, h))
        results = session.run(None, {"x": x.numpy(), "h": h.numpy()})
        for found, wanted in zip(results, (tensor.numpy() for tensor in expected), strict=True):
            largest = max(1.0, np.abs(wanted).max())  # relu cells that expand grow without bound
            differences.append(np.abs(found - wanted).max() / largest)
    return float(max(differences))


@pytest.mark.parametrize("operator", NATIVE)
def test_every_way_to_write_a_cell_becomes_its_operator(operator: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Side([cell() for cell in NATIVE[operator]])
    path = tmp_path / "model.onnx"
    found = operators(export(model, path).graph)
    assert found == {f"cells.{cell.__name__}.l0": operator for cell in NATIVE[operator]}
    assert worst(model, path) <= 1e-5


def test_near_misses_stay_a_scan_and_stay_right(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Side([cell() for cell in NEAR_MISSES])
    path = tmp_path / "model.onnx"
    found = operators(export(model, path).graph)
    assert list(found.values()) == ["Scan"] * len(NEAR_MISSES)
    assert worst(model, path) <= 1e-5


CELLS = [cell for cells in NATIVE.values() for cell in cells]


@settings(max_examples=8, deadline=None, phases=[Phase.generate])  # an export takes seconds
@given(
    cell=st.sampled_from(CELLS),
    features=st.integers(1, 6),
    hidden=st.integers(1, 7),
    seed=st.integers(0, 9),
)
def test_sizes_do_not_matter(
    cell: type[Cell], features: int, hidden: int, seed: int, tmp_path_factory: Any
) -> None:
    torch.manual_seed(seed)
    model = cell(features, hidden)
    path = tmp_path_factory.mktemp("sizes") / "model.onnx"
    found = operators(export(model, path, features, hidden).graph)
    assert list(found.values()) == [next(op for op, cells in NATIVE.items() if cell in cells)]
    assert worst(model, path, features, hidden) <= 1e-5


def initializers(model: onnx.ModelProto) -> set[str]:
    return {value.name for value in model.graph.initializer if value.data_type == 1}


def test_the_graph_is_the_node_and_what_turns_the_axes(tmp_path: Path) -> None:
    model = export(Side([ResetBeforeChunked()]), tmp_path / "model.onnx")
    kinds = sorted(node.op_type for node in model.graph.node)
    assert kinds == ["GRU", "Squeeze", "Squeeze", "Transpose", "Transpose", "Unsqueeze"]
    name = "cells.ResetBeforeChunked.l0"
    assert initializers(model) == {f"{name}.W", f"{name}.R", f"{name}.B"}


class Shared(nn.Module):
    """One cell over the frames, then over its own outputs; layers before and behind."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = ElmanOneLinear(5, 5)
        self.before, self.behind = nn.Conv1d(3, 5, 3, padding=1), nn.Linear(5, 2)

    def forward(self, x: Tensor, h: Tensor) -> Any:
        y, h = self.cell(self.before(x.transpose(1, 2)).transpose(1, 2), h)
        return self.behind(torch.relu(self.cell(y, h)[0]))


def test_two_scans_with_the_same_weights_share_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = Shared(), tmp_path / "model.onnx"
    artifact = export(model, path)
    assert operators(artifact.graph) == {"cell.l0": "RNN", "cell.l0.call2": "RNN"}
    assert {name for name in initializers(artifact) if name.startswith("cell")} == {
        "cell.l0.W",
        "cell.l0.R",
        "cell.l0.B",
    }
    assert worst(model, path) <= 1e-5


class TwoInputs(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.w = nn.utils.parametrizations.weight_norm(nn.Linear(features, 3 * hidden))
        self.u, self.v = self.weight(hidden, 3 * hidden), nn.Linear(1, 2 * hidden)

    def forward(self, x: Tensor, h: Tensor) -> Any:
        u_g, u_n = (u.clone() for u in self.u.split([2 * self.hidden, self.hidden], 1))

        def step(h: Tensor, frame: tuple[Tensor, Tensor]) -> Any:
            a, last = frame
            a_g, a_n = self.w(a).split([2 * self.hidden, self.hidden], 1)
            r, z = torch.sigmoid(a_g + h @ u_g + self.v(last)).chunk(2, 1)
            h = torch.tanh(a_n + (r * h) @ u_n) * (1 - z) + h * z
            return h, (h, h)

        h, y = rnnx.scan(step, h, (x, x[..., -1:]))
        return y[0], y[1], h


def test_two_inputs_and_weights_made_outside_the_loop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = TwoInputs(), tmp_path / "model.onnx"
    assert list(operators(export(model, path).graph).values()) == ["GRU"]
    assert worst(model, path) <= 1e-5


class Independent(Cell):
    """Each state sees itself alone: R is a diagonal."""

    def build(self, features: int, hidden: int) -> None:
        self.w, self.u = nn.Linear(features, hidden), self.weight(hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.relu(self.w(x) + self.u * h)
        return h, h


@pytest.mark.parametrize(("hidden", "operator"), [(8, "RNN"), (300, "Scan")])
def test_a_wide_diagonal_recurrence_stays_a_scan(
    hidden: int, operator: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, path = Independent(3, hidden), tmp_path / "model.onnx"
    assert list(operators(export(model, path, hidden=hidden).graph).values()) == [operator]
    assert worst(model, path, hidden=hidden) <= 1e-5


def test_a_wrong_match_is_caught_by_the_proof(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = recognise._pack

    def swapped(native: Any) -> Any:
        first, second, *rest = native.gates
        return pack(dataclasses.replace(native, gates=[second, first, *rest]))

    monkeypatch.setattr(recognise, "_pack", swapped)
    path = tmp_path / "model.onnx"
    with pytest.raises(rnnx.ExportError, match="differs from the model"):
        export(ResetBeforeChunked(), path)
    assert not path.exists()


class Streamed(nn.Module):
    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x, x.new_zeros(x.shape[0], 5))[0]


@pytest.mark.parametrize("cell", [ResetBeforeChunked, CoupledPeepholes, TwoInputs])
def test_a_recognised_step_streams(cell: type[Cell], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = Streamed(cell()), torch.randn(1, 20, 3)
    path = tmp_path / "model.onnx"
    rnnx.export(model, (x,), path, dynamic_shapes={"x": DYNAMIC["x"]}, streaming=True)
    stream = rnnx.Stream(path)
    fed = [stream.feed(chunk.numpy()) for chunk in x.split([3, 1, 9, 7], 1)]
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(np.concatenate([*fed, stream.flush()], 1), expected, atol=1e-5)

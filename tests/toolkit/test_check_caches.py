"""`rnnx.check` of a network whose stream holds frames: it passes, and fails every planted fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from onnx import ModelProto, numpy_helper
from torch import Tensor, nn

import rnnx
from faults import edit_contract, plant


class LookAhead(nn.Module):
    """A layer, a convolution that sees two frames ahead, a GRU, and the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(3, 3)
        self.conv = nn.Conv1d(3, 3, 5, padding=2)
        self.rnn = nn.GRU(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x)
        y = x + self.conv(x.transpose(1, 2)).transpose(1, 2).tanh()
        out: Tensor = self.rnn(y)[0]
        return out


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return LookAhead().eval()


@pytest.fixture(scope="module")
def exported(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("caches") / "m.onnx"
    rnnx.export(model, (torch.randn(2, 12, 3),), path, streaming=True)
    return path


def caches(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [state for state in record["states"] if state["kind"] == "cache"]


def start_later(model: ModelProto) -> None:
    """Every cache begins with one frame more."""

    def later(record: dict[str, Any]) -> None:
        for cache in caches(record):
            cache["start_frames"] += 1

    edit_contract(model, later)


def filled_by_ones(model: ModelProto) -> None:
    def fill(record: dict[str, Any]) -> None:
        for cache in caches(record):
            cache["fill"] = 1.0

    edit_contract(model, fill)


def damaged_weight(model: ModelProto) -> None:
    (conv,) = (node for node in model.graph.node if node.op_type == "Conv")
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == conv.input[1])
    value = numpy_helper.to_array(tensor).copy()
    value[0, 0, -1] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def mask_ignored(model: ModelProto) -> None:
    """What the first layer makes of the zeros behind the end is taken for frames."""
    (where,) = (node for node in model.graph.node if node.op_type == "Where")
    where.input[2] = where.input[1]


FAULTS: dict[str, Callable[[ModelProto], None]] = {
    "caches start a frame later": start_later,
    "caches are filled by ones": filled_by_ones,
    "a damaged convolution": damaged_weight,
    "the end is not told": mask_ignored,
}


def test_a_stream_with_caches_is_equal(exported: Path, model: nn.Module) -> None:
    assert {state.kind for state in rnnx.load_contract(exported).states} == {"cache", "h"}
    report = rnnx.check(exported, model)
    assert report.passed
    assert {finding.probe for finding in report.findings} == {"sequence", "chunked"}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_caught(
    exported: Path, model: nn.Module, tmp_path: Path, name: str
) -> None:
    plant(exported, tmp_path / "faulty.onnx", FAULTS[name])
    report = rnnx.check(tmp_path / "faulty.onnx", model)
    assert not report.passed
    assert {f.probe for f in report.findings if not f.passed} == {"sequence", "chunked"}

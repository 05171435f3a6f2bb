"""What single probes ask, skip and note."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fault_table
import rnnx
from networks import NETWORKS, Plain, X, network
from rnnx.parity.probes.delay import due
from rnnx.parity.probes.horizon import steps_of
from rnnx_runtime import Port

Exported = Callable[..., Path]


def test_what_does_not_fit_says_why(exported: Exported) -> None:
    probes = ("ragged", "batch", "reset", "causality", "delay", "chunked")
    model = NETWORKS["unbatched"]()[0]
    offline = rnnx.check(
        exported("unbatched", streaming=False), model, probes=["sequence", *probes]
    )
    whole = "the artifact takes whole sequences"
    assert offline.skipped == {
        "ragged": "the artifact takes no lengths",
        "batch": "the artifact takes one sequence",
        **dict.fromkeys(("reset", "causality", "delay", "chunked"), whole),
    }
    streaming = rnnx.check(exported("unbatched", streaming=True), model, probes=probes)
    assert streaming.skipped.keys() == {"ragged", "batch"}


@pytest.mark.parametrize(
    ("streaming", "weights", "multiple", "steps"),
    [
        (True, 1_000, 1, 10_000),
        (True, 10_000_000, 1, 2_000),
        (True, 10**12, 1, 100),
        (True, 1_000, 160, 2_500),
        (False, 1_000, 1, 1_000),
    ],
)
def test_large_networks_are_given_fewer_steps(
    streaming: bool, weights: int, multiple: int, steps: int
) -> None:
    contract = SimpleNamespace(streaming=streaming, chunk_multiple=multiple)
    trial: Any = SimpleNamespace(contract=contract, reference=SimpleNamespace(weights=weights))
    assert steps_of(trial) == steps


@pytest.mark.parametrize(
    ("stride", "delay", "fed", "frames"),
    [
        (1, 0, 5, 5),
        (1, 2, 5, 3),
        (160, 560, 719, 0),
        (160, 560, 720, 1),
        (160, 560, 880, 2),
        (Fraction(1, 2), 1, 3, 4),
    ],
)
def test_frames_are_due_when_their_input_is_over(
    stride: Fraction, delay: int, fed: int, frames: int
) -> None:
    port = Port("y", "float32", ("batch", "time"), 0, 1, stride=Fraction(stride))
    assert due(port, fed, delay) == frames


class Mixes(Plain):
    """Every sequence sees the mean of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.mean(0, keepdim=True)


class AllPadding(nn.Module):
    """Multiplies what is behind the end by 0, which leaves NaN there."""

    def __init__(self) -> None:
        super().__init__()
        self.packs = fault_table.Packs()

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        inside = torch.arange(x.shape[1])[None] < lengths[:, None]
        return self.packs(x, lengths)[0] * x.sum(2, keepdim=True) * inside[..., None]


def test_a_network_that_mixes_its_batch_is_not_held_to_rows(tmp_path: Path) -> None:
    model, args = network(lambda: Mixes("GRU"), X)
    rnnx.export(model, args, tmp_path / "m.onnx")
    report = rnnx.check(tmp_path / "m.onnx", model, probes=["sequence", "batch"])
    assert report.passed
    assert report.notes == ("batch: the torch model itself mixes the sequences of a batch",)


def test_padding_that_torch_lets_through_is_told(tmp_path: Path) -> None:
    model, (x,) = network(AllPadding, (3, 6, 3))
    axes = ({0: "batch", 1: "time"}, {0: "batch"})
    rnnx.export(model, (x, torch.tensor([6, 4, 1])), tmp_path / "m.onnx", dynamic_shapes=axes)
    report = rnnx.check(tmp_path / "m.onnx", model, probes=["ragged"])
    assert report.passed, report.to_text()
    assert (
        "ragged: NaN behind the end of a sequence reaches the torch model's outputs" in report.notes
    )


def test_a_loud_neighbour_moves_what_rounds_by_range_and_nothing_else() -> None:
    model = fault_table.model_and_args("gates-lstm")[0]
    path = fault_table.artifact("gates-lstm", True, "int8")
    alone = rnnx.check(path, model, probes=["sequence", "loud"])
    assert "as deployed" in alone.skipped["loud"]
    deployed = rnnx.check(path, model, probes=["loud"], chunk=8, batch=2)
    assert all(finding.max_abs > 0 and finding.snr_db is not None for finding in deployed.findings)
    assert {"row", "changed"} <= {key for finding in deployed.findings for key in finding.run}
    sound = rnnx.check(fault_table.artifact("gates-lstm", True, None), model, probes=["loud"])
    assert all(finding.max_abs == 0 for finding in sound.findings)

"""`rnnx.check` fails every fault planted in an artifact or in the runner, and names the place."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import faults
import rnnx
import runner_faults
from fault_table import FAULTS
from faults import plant
from networks import NETWORKS, Plain, network
from rnnx import Stream

Exported = Callable[..., Path]


def model_of(name: str) -> torch.nn.Module:
    return NETWORKS[name]()[0]


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("a NaN", "nan instead of "),
        ("another dtype", "dtype float64 instead of float32"),
        ("output transposed", "shape [16, 2, 4] instead of [2, 16, 4]"),
    ],
)
def test_what_cannot_be_compared_is_told(
    exported: Exported, tmp_path: Path, planted: str, reason: str
) -> None:
    network, streaming, fault, *_ = FAULTS[planted]
    assert not isinstance(fault, tuple)
    plant(exported(network, streaming=streaming), tmp_path / "faulty.onnx", fault)
    worst = rnnx.check(tmp_path / "faulty.onnx", model_of(network), probes=["sequence"]).worst
    assert worst.reason is not None
    assert reason in worst.reason
    assert math.isinf(worst.required_atol)


def test_the_worst_frame_is_named(exported: Exported, tmp_path: Path) -> None:
    """Of a network of one element a frame, only frame 5 of every sequence is off, by 3."""
    mask = np.zeros((1, 64, 1), np.float32)
    mask[0, 5] = 3

    def fault(model: Any) -> None:
        faults.after("y", ("Add", [mask], {}))(model)

    model, args = network(lambda: Plain("GRU"), (1, 64, 4))
    path = tmp_path / "fixed.onnx"
    rnnx.export(model, args, path, dynamic_shapes={"x": {0: "batch"}})
    plant(path, tmp_path / "faulty.onnx", fault)
    worst = rnnx.check(tmp_path / "faulty.onnx", model).worst
    assert worst.time_step is None  # this axis is not free, so it counts no frames
    assert worst.index is not None
    assert worst.index[1] == 5
    assert worst.max_abs == pytest.approx(3, abs=1e-5)


# --- the runner's faults, which only a run in chunks can show


@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.parametrize(
    "faulty",
    [
        runner_faults.never_fed_back,
        runner_faults.reset_at_each_feed,
        runner_faults.one_call_behind,
        runner_faults.one_buffer_for_all_results,
    ],
)
def test_a_fault_of_the_runner_fails_the_chunked_probe_alone(
    exported: Exported, name: str, faulty: Callable[[Stream, Any], Any]
) -> None:
    path = exported(name, streaming=True)
    with runner_faults.planted(("feed", faulty)):
        report = rnnx.check(path, model_of(name), probes=("sequence", "chunked"))
    assert not report.passed
    assert {finding.probe for finding in report.findings if not finding.passed} == {"chunked"}
    assert "y" in {finding.output for finding in report.findings if not finding.passed}


def test_a_lost_frame_fails_by_its_shape(exported: Exported) -> None:
    path = exported("gru", streaming=True)
    with runner_faults.planted(("feed", runner_faults.last_frame_lost)):
        report = rnnx.check(path, model_of("gru"), probes=("sequence", "chunked"))
    assert not report.passed
    assert report.worst.probe == "chunked"
    assert "instead of [2, 31, 4]" in (report.worst.reason or "")


def test_a_start_state_that_the_contract_forgot_fails_the_chunked_probe(
    exported: Exported, tmp_path: Path
) -> None:
    path = tmp_path / "faulty.onnx"
    plant(exported("learned", streaming=True), path, faults.forgotten_start)
    report = rnnx.check(path, model_of("learned"), probes=("sequence", "chunked"))
    failing = [finding for finding in report.findings if not finding.passed]
    assert {finding.probe for finding in failing} == {"chunked"}
    assert report.worst.time_step == 0

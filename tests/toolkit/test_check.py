"""`rnnx.check`: passes what is right, and fails every fault planted in what was right."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import faults
import rnnx
from artifacts import gru_artifact
from faults import Fault, plant
from networks import NETWORKS, Plain, Two, network
from rnnx import ArtifactError, InputError
from rnnx.parity.probes import PROBES

Exported = Callable[..., Path]
NAN = np.array([0, 0, np.nan, 0], np.float32)
LSTM = {"y", "s000", "s001", "s002", "s003"}
OFFLINE = ("gru", "lstm", "bidirectional", "explicit-gru", "explicit-lstm", "learned", "tokens")
STREAMING = tuple(name for name in NETWORKS if name != "bidirectional")


def model_of(name: str) -> nn.Module:
    return NETWORKS[name]()[0]


@pytest.mark.parametrize(
    ("name", "streaming"),
    [*((name, False) for name in OFFLINE), *((name, True) for name in STREAMING)],
)
def test_what_was_exported_passes(exported: Exported, name: str, streaming: bool) -> None:
    path = exported(name, streaming=streaming)
    report = rnnx.check(path, model_of(name))
    assert report.passed, report.to_text()
    contract = rnnx.load_contract(path)
    values = {port.name for port in contract.outputs} | {state.name for state in contract.states}
    probes = {"sequence", "chunked"} if streaming else {"sequence"}
    held = {(f.probe, f.output) for f in report.findings if f.probe in {"sequence", "chunked"}}
    assert held == {(probe, value) for probe in probes for value in values}
    asked_for = {"recorded", "metric"}  # run over the user's own sequences
    run = {finding.probe for finding in report.findings}
    assert run == PROBES.keys() - report.skipped.keys() - asked_for


# --- the wrong model


def test_other_weights_fail_every_output(exported: Exported) -> None:
    other = network(lambda: Plain("LSTM", num_layers=2), seed=1)[0]
    report = rnnx.check(exported("lstm", streaming=True), other)
    assert {finding.output for finding in report.findings if not finding.passed} == LSTM


class Uncalled(Plain):
    """Has the module, and does not run it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


class Renamed(nn.Module):
    """The same network under another module name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.LSTM(4, 4, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.net(x)[0]
        return y


class Pair(Plain):
    def forward(self, x: torch.Tensor) -> Any:  # type: ignore[override]
        return self.rnn(x)


@pytest.mark.parametrize("streaming", [False, True], ids=["offline", "streaming"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Plain("LSTM", num_layers=2, hidden_size=5),
        lambda: Plain("LSTM", num_layers=2, features=5),
        lambda: Plain("LSTM", num_layers=1),
        lambda: Plain("LSTM", num_layers=3),
        lambda: Plain("GRU", num_layers=2),
        lambda: Plain("LSTM", num_layers=2, bidirectional=True),
        lambda: Uncalled("LSTM", num_layers=2),
        lambda: Pair("LSTM", num_layers=2),
        Renamed,
        Two,
        lambda: nn.Linear(4, 4),
        lambda: nn.Embedding(4, 4),
    ],
)
def test_another_model_fails_or_is_refused(
    exported: Exported, make: Callable[[], nn.Module], streaming: bool
) -> None:
    def passes() -> bool:
        try:
            return rnnx.check(exported("lstm", streaming=streaming), make()).passed
        except InputError:
            return False

    assert not passes()


def test_the_order_of_layers_with_other_names_is_no_matter_offline(exported: Exported) -> None:
    """Offline only what comes out counts; a streaming artifact's states have their modules."""
    model = Renamed()
    source = model_of("lstm").rnn
    assert isinstance(source, nn.LSTM)
    model.net.load_state_dict(source.state_dict())
    assert rnnx.check(exported("lstm", streaming=False), model).passed
    with pytest.raises(InputError, match="module 'rnn', which the model lacks"):
        rnnx.check(exported("lstm", streaming=True), model)


# --- tolerances, seeds, reports


@pytest.mark.parametrize("name", ["rtol", "atol"])
@pytest.mark.parametrize("value", [-1e-9, math.nan, math.inf, -math.inf])
def test_a_tolerance_that_is_none_is_refused(exported: Exported, name: str, value: float) -> None:
    path = exported("gru", streaming=True)
    with pytest.raises(InputError, match="tolerance"):
        rnnx.check(path, model_of("gru"), **{name: value})


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), rtol=st.sampled_from([0.0, 1e-7, 1e-4]))
def test_the_required_atol_is_the_threshold(exported: Exported, seed: int, rtol: float) -> None:
    path, model = exported("gru", streaming=True), model_of("gru")

    def report(atol: float) -> rnnx.Report:
        probes = ("sequence", "chunked")
        return rnnx.check(path, model, rtol=rtol, atol=atol, probes=probes, seed=seed)

    needed = report(1).worst.required_atol
    assert report(needed).passed
    if needed > 0:
        assert not report(math.nextafter(needed, 0)).passed


def test_the_threshold_is_met_by_a_difference_of_known_size(
    exported: Exported, tmp_path: Path
) -> None:
    path = tmp_path / "off.onnx"
    offset = np.array(0.125, np.float32)
    plant(exported("gru", streaming=False), path, faults.after("y", ("Add", [offset], {})))
    report = rnnx.check(path, model_of("gru"), rtol=0)
    assert report.worst.max_abs == pytest.approx(0.125, abs=1e-6)
    assert report.worst.required_atol == pytest.approx(report.worst.max_abs, abs=1e-6)
    assert not rnnx.check(path, model_of("gru"), rtol=0, atol=0.1249).passed
    assert rnnx.check(path, model_of("gru"), rtol=0, atol=0.1251).passed


def test_the_same_seed_gives_the_same_report(exported: Exported) -> None:
    path, model = exported("lstm", streaming=True), model_of("lstm")
    first, again, other = (rnnx.check(path, model, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first.to_json() == again.to_json()
    assert first.findings != other.findings


KEYS = {"schema_version", "artifact", "passed", "worst", "findings", "seed", "versions", "notes"}
KEYS |= {"skipped", "artifact_sha256", "machine"}


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    "fault",
    [None, faults.scaled("y", 1.001), faults.after("y", ("Add", [NAN], {}))],
    ids=["equal", "scaled", "NaN"],
)
def test_the_report_as_json(exported: Exported, tmp_path: Path, fault: Fault | None) -> None:
    path = exported("lstm", streaming=True)
    if fault is not None:
        plant(path, tmp_path / "faulty.onnx", fault)
        path = tmp_path / "faulty.onnx"
    report = rnnx.check(path, model_of("lstm"), seed=3, rtol=1e-5, atol=1e-6)
    record = json.loads(report.to_json(), parse_constant=_no_constant)
    assert record.keys() == KEYS
    assert record["schema_version"] == 1
    assert record["artifact"] == str(path)
    assert record["passed"] is report.passed is (fault is None)
    assert record["seed"] == 3
    assert record["versions"]["torch"] == torch.__version__
    assert len(record["findings"]) == len(report.findings)
    for found, finding in zip(record["findings"], report.findings, strict=True):
        assert (found["output"], found["probe"]) == (finding.output, finding.probe)
        assert (found["run"], found["passed"]) == (finding.run, finding.passed)
        assert (found["rtol"], found["atol"]) == (1e-5, 1e-6)
        shown = None if math.isinf(finding.max_abs) else finding.max_abs
        assert found["max_abs"] == shown
    assert record["worst"] in record["findings"]


def test_the_table_holds_a_row_for_each_output_and_probe(exported: Exported) -> None:
    path = exported("gru", streaming=True)
    probes = ("sequence", "chunked")
    lines = rnnx.check(path, model_of("gru"), probes=probes).to_text().splitlines()
    rows = [line.split()[:2] for line in lines[2:-2]]
    names = ("y", "s000", "s001")
    assert rows == [[name, probe] for probe in ("sequence", "chunked") for name in names]
    assert lines[-1].startswith("equal: 18 comparisons at rtol 0.0001, atol 1e-05;")


def test_the_users_model_is_left_as_it_was(exported: Exported) -> None:
    model = model_of("lstm").train()
    called: list[nn.Module] = []
    model.register_forward_hook(lambda module, args, result: called.append(module))
    before = copy.deepcopy(model.state_dict())
    rnnx.check(exported("lstm", streaming=True), model)
    assert model.training
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert [len(m._forward_hooks) for m in model.modules()] == [1, 0]
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model not in called


def test_a_model_in_training_is_checked_as_it_is_used(tmp_path: Path) -> None:
    model, args = network(lambda: Plain("LSTM", num_layers=2, dropout=0.5), (2, 7, 4))
    model.train()
    rnnx.export(model, args, tmp_path / "m.onnx")
    assert rnnx.check(tmp_path / "m.onnx", model).passed


# --- artifacts that do not tell how to call their model


class ByHand(nn.Module):
    """The network of `artifacts.gru_artifact`, from its own weights."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnx
        from onnx import numpy_helper

        tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        self.gru = nn.GRU(3, 4, batch_first=True)
        for letter, name in (("W", "ih"), ("R", "hh")):
            update, reset, new = np.split(tensors[letter][0], 3)
            self._set(f"weight_{name}_l0", np.concatenate([reset, update, new]))
        for half, name in zip(np.split(tensors["B"][0], 2), ("ih", "hh"), strict=True):
            update, reset, new = np.split(half, 3)
            self._set(f"bias_{name}_l0", np.concatenate([reset, update, new]))

    def _set(self, name: str, value: Any) -> None:
        getattr(self.gru, name).data = torch.from_numpy(value.copy())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.gru(x)[0]
        return y


def test_a_file_that_rnnx_did_not_export_is_checked_with_example_arguments(tmp_path: Path) -> None:
    path = tmp_path / "hand.onnx"
    gru_artifact(path)
    x = torch.zeros(2, 5, 3)
    assert rnnx.check(path, ByHand(path), (x,)).passed
    with pytest.raises(InputError, match="does not record how its model is called"):
        rnnx.check(path, ByHand(path))
    with pytest.raises(InputError, match="2 example tensors for 1 inputs"):
        rnnx.check(path, ByHand(path), (x, x))


def test_a_dtype_that_the_contract_does_not_know_of_is_refused(
    exported: Exported, tmp_path: Path
) -> None:
    def fault(model: Any) -> None:
        faults.as_double("y")(model)
        faults.edit_contract(model, lambda record: record["outputs"][0].update(dtype="float32"))

    plant(exported("lstm", streaming=True), tmp_path / "faulty.onnx", fault)
    with pytest.raises(ArtifactError, match="its outputs differ in y"):
        rnnx.check(tmp_path / "faulty.onnx", model_of("lstm"))

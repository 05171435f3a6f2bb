"""`rnnx.check` fails every fault planted in an artifact or in the runner, and names the place."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch

import faults
import rnnx
from faults import Fault, plant
from networks import NETWORKS, Plain, network
from rnnx import Stream

Exported = Callable[..., Path]


def model_of(name: str) -> torch.nn.Module:
    return NETWORKS[name]()[0]


class Planted(NamedTuple):
    """A fault, the artifact it goes into, and the outputs that must fail in whole sequences."""

    network: str
    streaming: bool
    fault: Fault
    fails: str


NAN = np.array([0, 0, np.nan, 0], np.float32)
LSTM = "y s000 s001 s002 s003"
UPPER = "y s002 s003"
PLANTED = {
    "LSTM gates rolled": Planted("lstm", True, faults.roll_gates(0), LSTM),
    "upper LSTM gates rolled": Planted("lstm", True, faults.roll_gates(1), UPPER),
    "GRU gates rolled": Planted("gru", True, faults.roll_gates(0), "y s000 s001"),
    "bias dropped": Planted("lstm", True, faults.no_input(1, 3), UPPER),
    "recurrent bias dropped": Planted(
        "gru", True, faults.weight(1, "B", faults.without_half), "y s001"
    ),
    "R zero": Planted("lstm", True, faults.weight(1, "R", np.zeros_like), UPPER),
    "R transposed": Planted("lstm", True, faults.weight(1, "R", faults.transpose_gates), UPPER),
    "W scaled": Planted("rnn", True, faults.weight(0, "W", lambda w: w * 1.01), "y s000 s001"),
    "h0 ignored": Planted("lstm", True, faults.no_input(1, 5), UPPER),
    "c0 ignored": Planted("lstm", True, faults.no_input(1, 6), UPPER),
    "GRU h0 ignored": Planted("gru", True, faults.no_input(0, 5), "y s000 s001"),
    "h and c exchanged at the input": Planted("lstm", True, faults.exchange_states_in(1), UPPER),
    "h and c exchanged at the output": Planted(
        "lstm", True, faults.exchange_states_out(1), "s002 s003"
    ),
    "reset gate before the product": Planted(
        "gru", True, faults.attribute("linear_before_reset", 0), "y s000 s001"
    ),
    "tanh instead of relu": Planted(
        "rnn-relu", True, faults.attribute("activations", ["Tanh"]), "y s000"
    ),
    "layers exchanged": Planted("lstm", True, faults.exchange_layers, LSTM),
    "modules exchanged": Planted(
        "twice", True, faults.exchange_outputs("s000_out", "s001_out"), "s000 s001"
    ),
    "states from the wrong layer": Planted(
        "lstm", True, faults.exchange_outputs("s000_out", "s002_out"), "s000 s002"
    ),
    "state stands still": Planted("two", True, faults.state_stands_still("s001"), "s001"),
    "state scaled": Planted("lstm", True, faults.scaled("s003_out", 1.001), "s003"),
    "output scaled": Planted("lstm", True, faults.scaled("y", 1.001), "y"),
    "output transposed": Planted(
        "lstm", True, faults.after("y", ("Transpose", [], {"perm": [1, 0, 2]})), "y"
    ),
    "features transposed": Planted(
        "lstm", True, faults.after("y", ("Gather", [np.array([1, 0, 2, 3])], {"axis": 2})), "y"
    ),
    "output a frame late": Planted("gru", True, faults.late("y"), "y"),
    "another dtype": Planted("lstm", True, faults.as_double("y"), "y"),
    "a NaN in the weights": Planted("lstm", True, faults.weight(1, "B", faults.with_nan), UPPER),
    "a NaN": Planted("lstm", True, faults.after("y", ("Add", [NAN], {})), "y"),
    "an embedding's last row": Planted("tokens", True, faults.table_row(10), "y s000 s001"),
    "directions exchanged": Planted("bidirectional", False, faults.reverse_directions, "y"),
    "directions side by side the other way": Planted(
        "bidirectional",
        False,
        faults.after("y", ("Gather", [np.array([4, 5, 6, 7, 0, 1, 2, 3])], {"axis": 2})),
        "y",
    ),
    "offline gates rolled": Planted("gru", False, faults.roll_gates(1), "y"),
    "offline layers exchanged": Planted("lstm", False, faults.exchange_layers, "y"),
    "given h0 ignored": Planted("explicit-lstm", False, faults.no_input(0, 5), "y0 y1 y2"),
    "given c0 ignored": Planted("explicit-lstm", False, faults.no_input(1, 6), "y0 y1 y2"),
    "given h0 of a GRU ignored": Planted("explicit-gru", False, faults.no_input(1, 5), "y0 y1"),
    "given h and c exchanged": Planted(
        "explicit-lstm", False, faults.exchange_states_in(1), "y0 y1 y2"
    ),
    "final h and c exchanged": Planted(
        "explicit-lstm", False, faults.exchange_outputs("y1", "y2"), "y1 y2"
    ),
    "learned start state offline": Planted("learned", False, faults.no_input(0, 5), "y"),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_fails_and_is_named(
    exported: Exported, tmp_path: Path, planted: Planted
) -> None:
    path = tmp_path / "faulty.onnx"
    plant(exported(planted.network, streaming=planted.streaming), path, planted.fault)
    report = rnnx.check(path, model_of(planted.network))
    assert not report.passed
    failing = [finding for finding in report.findings if not finding.passed]
    whole = {finding.output for finding in failing if finding.probe == "sequence"}
    assert whole == set(planted.fails.split())
    assert report.worst in failing
    assert report.worst.required_atol == max(finding.required_atol for finding in failing)
    assert "NOT EQUAL" in report.to_text()


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
    network, streaming, fault, _ = PLANTED[planted]
    plant(exported(network, streaming=streaming), tmp_path / "faulty.onnx", fault)
    worst = rnnx.check(tmp_path / "faulty.onnx", model_of(network)).worst
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

feed, reset, restore = Stream.feed, Stream.reset, Stream.restore
OF_STREAMS: WeakKeyDictionary[Stream, Any] = WeakKeyDictionary()


def _never_fed_back(stream: Stream, x: Any) -> Any:
    before = stream.snapshot()
    y = feed(stream, x)
    stream.restore(before)
    return y


def _reset_at_each_feed(stream: Stream, x: Any) -> Any:
    stream.reset()
    return feed(stream, x)


def _one_call_behind(stream: Stream, x: Any) -> Any:
    older = OF_STREAMS.pop(stream, None)
    OF_STREAMS[stream] = stream.snapshot()
    if older is not None:
        stream.restore(older)
    return feed(stream, x)


def _one_buffer_for_all_results(stream: Stream, x: Any) -> Any:
    y = feed(stream, x)
    buffer = OF_STREAMS.setdefault(stream, {}).setdefault(y.shape, y)
    np.copyto(buffer, y)
    return buffer


def _last_frame_lost(stream: Stream, x: Any) -> Any:
    return feed(stream, x[:, :-1] if x.shape[1] > 1 else x)


@pytest.mark.parametrize("name", ["gru", "lstm"])
@pytest.mark.parametrize(
    "faulty",
    [_never_fed_back, _reset_at_each_feed, _one_call_behind, _one_buffer_for_all_results],
)
def test_a_fault_of_the_runner_fails_the_chunked_probe_alone(
    exported: Exported,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    faulty: Callable[[Stream, Any], Any],
) -> None:
    path = exported(name, streaming=True)
    monkeypatch.setattr(Stream, "feed", lambda stream, x: faulty(stream, _only(x)))
    report = rnnx.check(path, model_of(name))
    assert not report.passed
    assert {finding.probe for finding in report.findings if not finding.passed} == {"chunked"}
    assert "y" in {finding.output for finding in report.findings if not finding.passed}


def _only(x: Any) -> Any:
    return next(iter(x.values())) if isinstance(x, dict) else x


def test_a_lost_frame_fails_by_its_shape(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = exported("gru", streaming=True)
    monkeypatch.setattr(Stream, "feed", lambda stream, x: _last_frame_lost(stream, _only(x)))
    report = rnnx.check(path, model_of("gru"))
    assert not report.passed
    assert report.worst.probe == "chunked"
    assert "instead of [2, 31, 4]" in (report.worst.reason or "")


def test_a_start_state_that_the_contract_forgot_fails_the_chunked_probe(
    exported: Exported, tmp_path: Path
) -> None:
    path = tmp_path / "faulty.onnx"
    plant(exported("learned", streaming=True), path, faults.forgotten_start)
    report = rnnx.check(path, model_of("learned"))
    failing = [finding for finding in report.findings if not finding.passed]
    assert {finding.probe for finding in failing} == {"chunked"}
    assert report.worst.time_step == 0

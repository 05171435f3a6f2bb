"""`rnnx.check` over the user's own sequences, and by the user's own metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import faults
import rnnx
from faults import plant
from networks import NETWORKS
from rnnx.parity import Metric
from rnnx.runs import Runs
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Exported = Callable[..., Path]

X = np.random.default_rng(0).standard_normal((3, 9, 4)).astype(np.float32)


def model() -> torch.nn.Module:
    return NETWORKS["lstm"]()[0]


def check(path: Path, inputs: Runs, **options: Any) -> rnnx.Report:
    return rnnx.check(path, model(), inputs=inputs, probes=["recorded"], **options)


# --- inputs


@pytest.mark.parametrize("streaming", [False, True], ids=["offline", "streaming"])
def test_recordings_are_run_whole_and_as_deployed(exported: Exported, streaming: bool) -> None:
    report = check(exported("lstm", streaming=streaming), [X, X[:1, :5]], chunk=2)
    assert report.passed
    runs = [finding.run for finding in report.findings if finding.output == "y"]
    sizes = [(0, 3, 9), (1, 1, 5)]
    whole = [dict(zip(("recording", "batch", "frames"), size, strict=True)) for size in sizes]
    chunked = [run | {"chunk": 2} for run in whole]
    assert [run for run in runs if "chunk" not in run] == whole
    assert [run for run in runs if "chunk" in run] == (chunked if streaming else [])


def test_only_the_users_own_data_shows_such_a_fault(exported: Exported, tmp_path: Path) -> None:
    """A clip at 50, where random inputs never are."""
    limits = [np.array(limit, np.float32) for limit in (-50, 50)]
    clip = ("Clip", limits, {})
    plant(exported("rnn-relu", streaming=False), tmp_path / "faulty.onnx", faults.after("y", clip))
    net = NETWORKS["rnn-relu"]()[0]
    assert rnnx.check(tmp_path / "faulty.onnx", net, probes=["sequence"]).passed
    loud = rnnx.check(tmp_path / "faulty.onnx", net, inputs=100 * X)
    assert {finding.probe for finding in loud.findings if not finding.passed} >= {"recorded"}


def test_files_of_sequences(exported: Exported, tmp_path: Path) -> None:
    path = exported("lstm", streaming=True)
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X)
    reports = [check(path, form) for form in (X, tmp_path / "x.npy", str(tmp_path / "x.npz"))]
    assert reports[0].findings == reports[1].findings == reports[2].findings


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "there are no inputs to check with"),
        (X[..., :3], r"shape \[3, 9, 3\]"),
        (X.astype(np.float64), "float64"),
        (X[:, :0], "hold no frame"),
        (X[:0], "hold no sequence"),
        ({"x": X, "label": X}, r"unknown: \['label'\]"),
        ("gone.npz", "no file at 'gone.npz'"),
        (7, "what a check runs on cannot be a int"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(exported: Exported, inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check(exported("lstm", streaming=True), inputs)


def test_a_sequence_too_short_for_the_network_is_refused(tmp_path: Path) -> None:
    class Strided(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv1d(4, 4, 5, stride=2)
            self.rnn = torch.nn.GRU(4, 4, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]
            return y

    rnnx.export(
        Strided(),
        (torch.randn(2, 12, 4),),
        tmp_path / "m.onnx",
        dynamic_shapes={"x": {0: "batch", 1: "time"}},
        streaming=True,
    )
    with pytest.raises(InputError, match="hold 4 frames, the network needs 5"):
        rnnx.check(tmp_path / "m.onnx", Strided(), inputs=X[:, :4])


def test_without_inputs_the_probe_says_so(exported: Exported) -> None:
    path = exported("lstm", streaming=True)
    report = rnnx.check(path, model(), probes=["recorded", "metric"])
    assert report.skipped == {
        "recorded": "no inputs were given",
        "metric": "no metric was given",
    }
    assert not report.passed
    assert not {"recorded", "metric"} & rnnx.check(path, model(), probes=None).skipped.keys()


# --- a metric


def accuracy(outputs: Arrays, inputs: Arrays) -> float:
    return float((outputs["y"].argmax(-1) == inputs["label"]).mean())


def rmse(outputs: Arrays, inputs: Arrays) -> float:
    return float(np.sqrt(np.square(outputs["y"] - inputs["target"]).mean()))


rmse.lower_is_better = True  # type: ignore[attr-defined]


def torchs(x: Array) -> Array:
    with torch.no_grad():
        y: Array = model().eval()(torch.from_numpy(x)).numpy()
    return y


def measured(path: Path, inputs: Runs, metric: Metric) -> rnnx.Finding:
    report = rnnx.check(path, model(), inputs=inputs, metric=metric, probes=["metric"])
    (finding,) = report.findings
    assert report.passed is finding.passed
    return finding


def swapped(tmp_path: Path, source: Path) -> Path:
    """The artifact with its first two features exchanged: some classes are others."""
    order = np.array([1, 0, 2, 3])
    plant(source, tmp_path / "f.onnx", faults.after("y", ("Gather", [order], {"axis": 2})))
    return tmp_path / "f.onnx"


@pytest.mark.parametrize("streaming", [False, True], ids=["offline", "streaming"])
def test_a_metric_of_the_labels_in_the_file(
    exported: Exported, tmp_path: Path, streaming: bool
) -> None:
    y = torchs(X)
    label = y.argmax(-1)
    np.savez(tmp_path / "d.npz", x=X, label=label)
    source = exported("lstm", streaming=streaming)
    right = measured(source, tmp_path / "d.npz", Metric(accuracy, floor=1.0, drop=0))
    assert right.passed
    assert (right.probe, right.output, right.max_abs) == ("metric", "accuracy", 0)
    wrong = swapped(tmp_path, source)
    expected = float((y[..., [1, 0, 2, 3]].argmax(-1) == label).mean())
    assert 0 < expected < 1
    found = measured(wrong, tmp_path / "d.npz", Metric(accuracy, drop=0.0))
    assert not found.passed
    assert found.max_abs == pytest.approx(1 - expected)
    assert f"{expected:.6g}, the reference 1;" in str(found.reason)
    assert math.isinf(found.required_atol)
    above, below = (Metric(accuracy, floor=expected + offset) for offset in (-0.01, 0.01))
    assert measured(wrong, tmp_path / "d.npz", above).passed
    assert not measured(wrong, tmp_path / "d.npz", below).passed


def test_a_metric_of_which_less_is_better(exported: Exported, tmp_path: Path) -> None:
    source = exported("lstm", streaming=True)
    runs = [{"x": X, "target": torchs(X) + 0.5}]
    assert measured(source, runs, Metric(rmse, floor=0.501, drop=0.001)).passed
    assert not measured(source, runs, Metric(rmse, floor=0.499)).passed
    worse = swapped(tmp_path, source)
    assert not measured(worse, runs, Metric(rmse, drop="0.1%")).passed
    assert measured(worse, runs, Metric(rmse, drop="1000%")).passed


def test_the_mean_over_recordings(exported: Exported) -> None:
    path = exported("lstm", streaming=False)
    runs = [{"x": X, "target": torchs(X) + offset} for offset in (0.2, 0.4)]
    found = measured(path, runs, Metric(rmse, floor=1))
    assert found.run == {"recordings": 2}
    assert str(found.reason).startswith("0.3, the reference 0.3; asked for: at most 1")


def test_an_artifact_streams_in_the_chunks_it_is_deployed_with(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed: list[int] = []
    feed = rnnx.Stream.feed

    def counting(stream: rnnx.Stream, x: Any, **options: Any) -> Any:
        fed.append((x["x"] if isinstance(x, dict) else x).shape[1])
        return feed(stream, x, **options)

    monkeypatch.setattr(rnnx.Stream, "feed", counting)
    metric = Metric(lambda outputs, inputs: 1.0, drop=0)
    path = exported("lstm", streaming=True)
    rnnx.check(path, model(), inputs=X, metric=metric, probes=["metric"], chunk=4)
    assert fed == [4, 4, 1]


def raises(outputs: Arrays, inputs: Arrays) -> float:
    raise KeyError("label")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, r"metric 'raises' raised KeyError: 'label' \(at .*test_check_own.py:"),
        (lambda outputs, inputs: None, "raised TypeError"),
        (lambda outputs, inputs: "good", "raised ValueError"),
    ],
)
def test_a_metric_that_fails_is_told(exported: Exported, function: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measured(exported("lstm", streaming=False), X, Metric(function, drop=0))


def test_a_metric_that_is_nan_fails(exported: Exported) -> None:
    metric = Metric(lambda outputs, inputs: math.nan, drop=1)
    assert not measured(exported("lstm", streaming=False), X, metric).passed


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({}, "without a limit proves nothing"),
        ({"drop": -0.1}, "a drop one of 0 or more"),
        ({"drop": "half"}, "a drop one of 0 or more"),
        ({"drop": "%"}, "a drop one of 0 or more"),
        ({"floor": math.nan}, "a floor is a number"),
        ({"floor": math.inf, "drop": 1}, "a floor is a number"),
    ],
)
def test_limits_that_are_none_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Metric(accuracy, **limits)


def test_a_metric_needs_sequences(exported: Exported) -> None:
    with pytest.raises(InputError, match="metric 'accuracy' has no sequences"):
        rnnx.check(exported("lstm", streaming=True), model(), metric=Metric(accuracy, drop=0))


FIGURES = st.floats(-1e6, 1e6)


@given(figure=FIGURES, reference=FIGURES, floor=FIGURES, drop=st.floats(0, 1e6))
def test_the_limits_of_either_direction_mirror_each_other(
    figure: float, reference: float, floor: float, drop: float
) -> None:
    higher, lower = Metric(accuracy, floor, drop), Metric(rmse, -floor, drop)
    assert higher.passes(figure, reference) == lower.passes(-figure, -reference)
    assert higher.passes(figure, reference) == (figure >= floor and reference - figure <= drop)


@given(reference=FIGURES, percent=st.floats(0, 200))
def test_a_drop_in_percent_is_of_the_references_figure(reference: float, percent: float) -> None:
    allowed = percent / 100 * abs(reference)
    metric = Metric(accuracy, drop=f"{percent}%")
    assert metric.passes(reference, reference)
    assert not metric.passes(reference - 1.01 * allowed - 1e-3, reference)
    assert metric.passes(reference - 0.99 * allowed, reference)

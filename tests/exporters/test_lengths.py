"""How long a sequence must be: told by the graph's own lengths, and held before any run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

import rnnx
from exportable import GRU, save_text
from rnnx_exporters.lengths import least_frames

X = "float[batch,time,3] x"


class Audio(nn.Module):
    """Windows of 25 ms every 10 ms, a GRU over them."""

    sample_rate = 16000
    labels = ("no", "yes", "stop")

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, 4, 400, stride=160)
        self.rnn = nn.GRU(4, 3, batch_first=True)

    def forward(self, audio: Tensor) -> Tensor:
        y: Tensor = self.rnn(self.front(audio[:, None]).transpose(1, 2))[0]
        return y


@pytest.fixture(scope="module")
def audio() -> nn.Module:
    torch.manual_seed(0)
    return Audio().eval()


@pytest.fixture(scope="module")
def offline(audio: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audio") / "offline.onnx"
    axes = {"audio": {0: "batch", 1: "time"}}
    rnnx.export(audio, (torch.randn(2, 1600),), path, dynamic_shapes=axes)
    return path


@pytest.fixture(scope="module")
def streaming(offline: Path) -> Path:
    path = offline.with_name("streaming.onnx")
    rnnx.to_streaming(offline, path)
    return path


@pytest.mark.parametrize(
    ("length", "least"),
    [
        ("time", 1),
        ("(time - 400) // 160 + 1", 400),
        ("time // 4", 4),
        ("2 * time - 9", 5),
        ("-(-time // 3) - 1", 4),
        ("time + 7", 1),
        ("(time - 1) // 2 - other", 1),  # nothing is known of the other
        ("time // 0", 1),
        ("time ** 2 - 9", 1),
        ("f(time)", 1),
        ("0 * time", 1),
    ],
)
def test_a_length_tells_the_least(tmp_path: Path, length: str, least: int) -> None:
    path = save_text(tmp_path / "g.onnx", X, "float[batch,u,3] y", "y = Relu(x)")
    model = ir.load(path)
    model.graph.outputs[0].shape = ir.Shape(["batch", length, 3])
    assert least_frames(model, "time") == least


def test_a_recurrent_operator_needs_a_frame(tmp_path: Path) -> None:
    """The output has frames enough, the layer in the middle has not."""
    body = GRU + "y = GRU<hidden_size=3>(xt, w, r)  z = Relu(x)"
    path = save_text(tmp_path / "g.onnx", "float[batch,time,4] x", "float[batch,time,4] z", body)
    model = ir.load(path)
    (gru,) = [node for node in model.graph if node.op_type == "GRU"]
    assert gru.inputs[0] is not None
    gru.inputs[0].shape = ir.Shape(["(time - 5) // 2", "batch", 4])
    assert least_frames(model, "time") == 7


@pytest.mark.parametrize("samples", [1, 159, 399])
def test_too_short_a_sequence_is_refused(offline: Path, samples: int) -> None:
    """onnxruntime would abort the process."""
    model = rnnx.Model(offline)
    with pytest.raises(rnnx.InputError, match=f"{samples} frames, the network needs 400 or more"):
        model.run(np.zeros((2, samples), np.float32))


@pytest.mark.parametrize("samples", [400, 559, 560, 2000])
def test_what_is_long_enough_equals_torch(offline: Path, audio: nn.Module, samples: int) -> None:
    x = torch.randn(2, samples)
    with torch.no_grad():
        expected = audio(x).numpy()
    np.testing.assert_allclose(rnnx.Model(offline).run(x.numpy()), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["offline", "streaming"])
def test_raw_audio_is_checked_and_quantized(
    request: pytest.FixtureRequest, tmp_path: Path, audio: nn.Module, kind: str
) -> None:
    path = request.getfixturevalue(kind)
    report = rnnx.check(path, audio)
    assert report.passed
    assert all(finding.run["frames"] >= 400 for finding in report.findings)
    small = tmp_path / "small.onnx"
    rnnx.quantize(path, small, level="int8-store")
    known, found = rnnx.load_contract(path), rnnx.load_contract(small)
    assert found.quantization is not None
    for field in ("inputs", "outputs", "states", "masks", "first_chunk", "chunk_multiple"):
        assert getattr(found, field) == getattr(known, field)
    x = np.random.default_rng(0).normal(size=(1, 4000)).astype(np.float32)
    np.testing.assert_allclose(rnnx.Model(small).run(x), rnnx.Model(path).run(x), atol=0.05)


def test_what_the_model_says_of_itself_is_kept(offline: Path, tmp_path: Path) -> None:
    known = rnnx.load_contract(offline)
    assert (known.sample_rate, known.labels) == (16000.0, ("no", "yes", "stop"))
    rnnx.quantize(offline, tmp_path / "small.onnx", level="fp16-store")
    for chunk in (None, 160):
        found = rnnx.to_streaming(tmp_path / "small.onnx", tmp_path / "s.onnx", chunk=chunk)
        assert (found.sample_rate, found.labels) == (known.sample_rate, known.labels)
        assert found.source == known.source
        assert found.source["model"] == "Audio"
        assert (found.quantization or {})["level"] == "fp16-store"
        assert rnnx.load_contract(tmp_path / "s.onnx") == found


@pytest.mark.parametrize("rate", [0, -1, True, math.nan, math.inf, "16k", None, torch.ones(1)])
def test_a_rate_of_another_kind_is_none(rate: object) -> None:
    from rnnx_exporters.torch_export import _sample_rate

    model = nn.Module()
    model.sample_rate = rate
    assert _sample_rate(model) is None


@pytest.mark.parametrize("labels", ["abc", [], [1, 2], ("a", None), {"a": 1}, torch.ones(2), None])
def test_labels_of_another_kind_are_none(labels: object) -> None:
    from rnnx_exporters.torch_export import _labels

    model = nn.Module()
    model.labels = labels
    assert _labels(model) is None

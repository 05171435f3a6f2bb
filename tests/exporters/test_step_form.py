"""The step form that an artifact carries: fewer operators, the same numbers, never in the way."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import rnnx
from command_line import exit_code
from exportable import torch_run
from rnnx_exporters import artifact, step_record, streaming
from rnnx_exporters.step_form import step_form
from rnnx_runtime.step import METADATA_KEY

FRAMES = 23
X = torch.randn(1, FRAMES, 6, generator=torch.Generator().manual_seed(0))


class Layers(nn.Module):
    """Two recurrent layers and a readout: eight operators that only give a wire another shape."""

    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.recurrent = layer(6, 8, num_layers=2, batch_first=True)
        self.readout = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.recurrent(x)[0])


class Denoiser(nn.Module):
    """What a step form can get wrong: caches, a stride, a mask, a skip that waits, a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.causal = nn.Conv1d(6, 8, 3, dilation=2)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.ahead = nn.Conv1d(8, 8, 3, padding=1)
        self.scale = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.causal(F.pad(x.transpose(1, 2), (4, 0))).relu().transpose(1, 2)
        y, h = self.gru(y)
        ahead = self.ahead(y.transpose(1, 2)).transpose(1, 2)
        return self.scale(ahead) + y, h[0]


class Strided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(6, 8, 4, stride=2)
        self.gru = nn.GRU(8, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.stem(x.transpose(1, 2)).transpose(1, 2))[0]


class Loops(nn.Module):
    """Two loops of its own, one over what the other gives; a state is an output as well."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LSTMCell(6, 8), nn.RNNCell(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(x.shape[0], 8)

        def smoothed(state: Any, frame: Tensor) -> Any:
            h, c = self.first(frame, state)
            return (0.9 * h, c), h

        def squared(h: Tensor, frame: Tensor) -> Any:
            h = self.second(frame.square(), h)
            return h, h

        _, y = rnnx.scan(smoothed, (zeros, zeros), x)
        h, y = rnnx.scan(squared, zeros, y)
        return y, h


def exported(path: Path, module: nn.Module) -> rnnx.Model:
    axes = {"x": {0: "batch", 1: "time"}}
    rnnx.export(module, (torch.randn(2, 30, 6),), path, dynamic_shapes=axes, streaming=True)
    return rnnx.Model(path)


def unpacked(text: str) -> tuple[dict[str, Any], bytes]:
    head, _, graph = zlib.decompress(base64.b85decode(text)).partition(b"\n")
    return json.loads(head), graph


def packed(record: dict[str, Any], graph: bytes, **fields: Any) -> str:
    data = json.dumps(record | fields).encode() + b"\n" + graph
    return base64.b85encode(zlib.compress(data)).decode()


def operators_of(path: Path) -> Counter[str]:
    props = {prop.key: prop.value for prop in onnx.load(path).metadata_props}
    _, graph = unpacked(props[METADATA_KEY])
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


def without_step(model: rnnx.Model) -> rnnx.Model:
    other = rnnx.Model(model.path)
    other.__dict__["step"] = None  # as if the file had none
    return other


def in_steps(model: rnnx.Model, x: Any, step: int = 1) -> list[Any]:
    stream = model.stream(batch=len(x))
    pieces = [stream.feed(x[:, at : at + step]) for at in range(0, x.shape[1], step)]
    return [*pieces, stream.flush()]


def same(found: Any, expected: Any) -> bool:
    if isinstance(found, dict):
        return all(np.array_equal(found[name], expected[name], equal_nan=True) for name in expected)
    return np.array_equal(found, expected)


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, rnnx.Model]:
    module = Layers(nn.LSTM)
    return module, exported(tmp_path_factory.mktemp("step") / "lstm.onnx", module)


def test_only_what_computes_is_left(lstm: tuple[nn.Module, rnnx.Model]) -> None:
    path = Path(lstm[1].path)
    assert operators_of(path) == {"LSTM": 2, "MatMul": 1, "Add": 1}
    assert sum(rnnx.load_contract(path).operators.values()) > 2 * 4


def test_inspect_tells_of_it(
    lstm: tuple[nn.Module, rnnx.Model], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("inspect", lstm[1].path) == 0
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "step form 4 operators for a frame of one sequence" in told


def test_steps_equal_torch_and_the_artifacts_own_graph(
    lstm: tuple[nn.Module, rnnx.Model],
) -> None:
    module, model = lstm
    assert model.step is not None
    found = in_steps(model, X.numpy())
    np.testing.assert_allclose(
        np.concatenate(found, 1), torch_run(module, X)[0], rtol=1e-5, atol=1e-6
    )
    assert all(map(same, found, in_steps(without_step(model), X.numpy())))


@pytest.mark.parametrize(("network", "step"), [(Denoiser, 1), (Strided, 2), (Loops, 1)])
def test_caches_masks_and_strides(tmp_path: Path, network: type[nn.Module], step: int) -> None:
    model = exported(tmp_path / "model.onnx", network())
    assert model.step is not None
    assert model.step.frames == model.contract.chunk_multiple == step
    assert not any(name.startswith("mask") for name in model.step.shapes)
    assert "Scan" not in operators_of(tmp_path / "model.onnx")
    found, own = (in_steps(m, X.numpy(), step) for m in (model, without_step(model)))
    assert all(map(same, found, own))


def test_steps_go_on_from_chunks_and_back(lstm: tuple[nn.Module, rnnx.Model]) -> None:
    _, model = lstm
    stream, start, pieces = model.stream(), 0, []
    for length in (5, 1, 1, 1, 4, 1, 1, 9):
        pieces.append(stream.feed(X.numpy()[:, start : start + length]))
        start += length
    assert start == FRAMES
    assert np.array_equal(np.concatenate(pieces, 1), model.run(X.numpy()))


def test_several_sequences_take_the_artifacts_own_graph(
    lstm: tuple[nn.Module, rnnx.Model],
) -> None:
    x = np.concatenate([X.numpy(), X.numpy()[:, ::-1]])
    found = np.concatenate(in_steps(lstm[1], x), 1)
    assert np.array_equal(found, lstm[1].run(x))


@pytest.mark.parametrize("level", ["int8", "int8-store", "fp16-store"])
def test_a_quantized_artifact_has_its_own(
    lstm: tuple[nn.Module, rnnx.Model], tmp_path: Path, level: str
) -> None:
    small = tmp_path / "small.onnx"
    rnnx.quantize(lstm[1].path, small, level=level)
    model = rnnx.Model(small)
    assert model.step is not None
    found = in_steps(model, X.numpy())
    assert all(map(same, found, in_steps(without_step(model), X.numpy())))
    assert not all(map(same, found, in_steps(lstm[1], X.numpy())))  # not the one it was made from


def test_what_another_tool_moved_is_not_read(
    lstm: tuple[nn.Module, rnnx.Model], tmp_path: Path
) -> None:
    proto = onnx.load(lstm[1].path)
    weights = list(proto.graph.initializer)
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(reversed(weights))
    onnx.save(proto, tmp_path / "moved.onnx")
    model = rnnx.Model(tmp_path / "moved.onnx")
    assert model.step is None
    assert all(map(same, in_steps(model, X.numpy()), in_steps(lstm[1], X.numpy())))


@pytest.mark.parametrize(
    "fault",
    [
        lambda record, graph: "no base85 \N{SNOWMAN}",
        lambda record, graph: base64.b85encode(b"not deflated").decode(),
        lambda record, graph: packed(record, graph)[:-40],
        lambda record, graph: base64.b85encode(zlib.compress(b"no JSON\n" + graph)).decode(),
        lambda record, graph: base64.b85encode(zlib.compress(b"[]\n" + graph)).decode(),
        lambda record, graph: packed(record, b"x"),
        lambda record, graph: packed(record, bytes(40 << 20)),
        lambda record, graph: packed(record, graph, weights=[["W", "float32", [1 << 40], 0]]),
        lambda record, graph: packed(record, graph, weights=[["W", "float32", [-1], 0]]),
        lambda record, graph: packed(record, graph, weights=[["W", "object", [1], 0]]),
        lambda record, graph: packed(record, graph, weights=[["W", "float32", [1], -4]]),
        lambda record, graph: packed(
            record, graph, weights=[[w[0], *w[1:3], w[3] + 4] for w in record["weights"]]
        ),
        lambda record, graph: packed(record, graph, frames="many"),
    ],
)
def test_a_broken_record_is_no_step_form(
    lstm: tuple[nn.Module, rnnx.Model], tmp_path: Path, fault: Any
) -> None:
    proto = onnx.load(lstm[1].path)
    prop = next(prop for prop in proto.metadata_props if prop.key == METADATA_KEY)
    prop.value = fault(*unpacked(prop.value))
    onnx.save(proto, tmp_path / "broken.onnx")
    model = rnnx.Model(tmp_path / "broken.onnx")
    assert model.step is None
    assert all(map(same, in_steps(model, X.numpy()), in_steps(lstm[1], X.numpy())))


def test_a_wrong_step_form_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The proof runs in steps, too."""

    def wrong(model: Any, contract: rnnx.Contract) -> Any:
        step = step_form(model, contract)
        gru = next(node for node in step.graph if node.op_type == "GRU")
        gru.attributes.add(ir.AttrInt64("linear_before_reset", 0))
        return step

    monkeypatch.setattr(step_record, "step_form", wrong)
    with pytest.raises(rnnx.NotStreamableError, match="differs from the whole sequence"):
        exported(tmp_path / "gru.onnx", Layers(nn.GRU))
    assert not list(tmp_path.iterdir())


def test_large_networks_and_fixed_chunks_have_none(
    lstm: tuple[nn.Module, rnnx.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = streaming.to_streaming(exported_offline(tmp_path), tmp_path / "fixed.onnx", chunk=4)
    assert fixed.chunk == 4
    assert rnnx.Model(tmp_path / "fixed.onnx").step is None
    monkeypatch.setattr(step_record, "_LARGEST", 1000)
    graph = artifact.load_graph(lstm[1].path)
    step_record.attach_step(graph, lstm[1].contract)
    assert METADATA_KEY not in graph.metadata_props


def exported_offline(folder: Path) -> Path:
    path = folder / "offline.onnx"
    rnnx.export(Layers(nn.GRU), (torch.randn(2, 30, 6),), path)
    return path


def test_the_fingerprint_is_that_of_the_artifacts_own_graph(
    lstm: tuple[nn.Module, rnnx.Model],
) -> None:
    graph, contract = artifact.load_graph(lstm[1].path), lstm[1].contract
    assert METADATA_KEY in graph.metadata_props
    again = artifact.seal(graph, dataclasses.replace(contract, fingerprint=""))
    assert again.fingerprint == contract.fingerprint
    assert METADATA_KEY not in graph.metadata_props  # until it is made anew

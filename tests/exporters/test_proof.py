"""The proofs before anything is written: each must catch the fault it is there for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

import rnnx
from exportable import Network, save_text
from rnnx_exporters import artifact
from rnnx_exporters.describe import describe
from rnnx_exporters.layout import Layout, infer
from rnnx_exporters.proof import prove_export
from rnnx_exporters.streaming_proof import prove_streaming
from rnnx_exporters.wire_shapes import WireShapes
from rnnx_runtime.contract import METADATA_KEY

X = torch.randn(2, 5, 4)


class Starting(nn.Module):
    """Two layers, a start that was trained, a readout beside the frames."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, num_layers=2, batch_first=True)
        self.start = nn.Parameter(torch.randn(2, 1, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        start = self.start.expand(-1, x.shape[0], -1).contiguous()
        y, (_, c) = self.lstm(x, (start, start))
        return y, c[-1]


@dataclass(frozen=True)
class Made:
    """A network exported offline and streaming."""

    module: nn.Module
    offline: Path
    stream: Path
    contract: rnnx.Contract


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    torch.manual_seed(3)
    folder, module = tmp_path_factory.mktemp("made"), Starting().eval()
    rnnx.export(module, (X,), folder / "offline.onnx")
    contract = rnnx.export(module, (X,), folder / "stream.onnx", streaming=True)
    return Made(module, folder / "offline.onnx", folder / "stream.onnx", contract)


def test_what_was_exported_is_proven(made: Made) -> None:
    graph = artifact.load_graph(made.offline)
    with torch.no_grad():
        assert 0 < prove_export(graph, made.module, infer(made.module, (X,))) < 1e-5
    prove_streaming(graph, made.stream, made.contract)


def perturb_weight(graph: onnx.GraphProto) -> None:
    weight = next(i for i in graph.initializer if i.name == "lstm.l1.R")
    array = numpy_helper.to_array(weight).copy()
    array[0, 0, 0] += 0.05
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))


def scale(name: str) -> Callable[[onnx.GraphProto], None]:
    """The output of this name is off by a thousandth."""

    def plant(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if name in node.output)
        node.output[list(node.output).index(name)] = "right"
        factor = numpy_helper.from_array(np.array(1.001, np.float32), "factor")
        graph.initializer.append(factor)
        graph.node.append(onnx.helper.make_node("Mul", ["right", "factor"], [name]))

    return plant


def rewire(output: str, source: str) -> Callable[[onnx.GraphProto], None]:
    """The state `output` takes what the state `source` should get."""

    def plant(graph: onnx.GraphProto) -> None:
        nodes = {node.output[0]: node for node in graph.node}
        nodes[output].input[0] = nodes[source].input[0]

    return plant


def keep(state: str) -> Callable[[onnx.GraphProto], None]:
    """The state never moves: what goes in comes out."""

    def plant(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if f"{state}_out" in node.output)
        graph.node.remove(node)
        graph.node.append(onnx.helper.make_node("Identity", [f"{state}_in"], [f"{state}_out"]))

    return plant


def forget(state: str) -> Callable[[onnx.GraphProto], None]:
    """The state is not read: each chunk starts from zeros."""

    def plant(graph: onnx.GraphProto) -> None:
        node = next(node for node in graph.node if f"{state}_in" in node.input)
        zero = numpy_helper.from_array(np.array(0, np.float32), "nothing")
        graph.initializer.append(zero)
        graph.node.insert(
            0, onnx.helper.make_node("Mul", [f"{state}_in", "nothing"], ["forgotten"])
        )
        node.input[0] = "forgotten"

    return plant


def planted(source: Path, path: Path, plant: Callable[[onnx.GraphProto], None]) -> Path:
    model = onnx.load(source)
    plant(model.graph)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("plant", "output"), [(perturb_weight, "y0"), (scale("y0"), "y0"), (scale("y1"), "y1")]
)
def test_an_offline_graph_that_differs_is_refused(
    tmp_path: Path, made: Made, plant: Callable[[onnx.GraphProto], None], output: str
) -> None:
    graph = artifact.load_graph(planted(made.offline, tmp_path / "m.onnx", plant))
    layout = infer(made.module, (X,))
    with torch.no_grad(), pytest.raises(rnnx.ExportError, match=f"'{output}' differs from the mod"):
        prove_export(graph, made.module, layout)


def test_a_graph_that_is_right_at_one_length_is_refused(tmp_path: Path) -> None:
    """Five frames are the example's; a sum of five is a mean of any number only there."""
    module = Network(lambda p, x: p["gru"](x)[0].mean(1), gru=nn.GRU(4, 5, batch_first=True))
    frozen = Network(lambda p, x: p["gru"](x)[0].sum(1) / 5, gru=module.parts["gru"])
    axes = {"x": {0: "batch", 1: "time"}}
    rnnx.export(frozen, (X,), tmp_path / "m.onnx", dynamic_shapes=axes)
    graph, layout = artifact.load_graph(tmp_path / "m.onnx"), infer(module, (X,))
    with torch.no_grad(), pytest.raises(rnnx.ExportError, match=r"at sizes .*'time': 7"):
        prove_export(graph, module, layout)


FAULTS: dict[str, tuple[Callable[[onnx.GraphProto], None], str]] = {
    "cell-for-hidden": (rewire("s000_out", "s001_out"), "y0"),
    "layer-for-layer": (rewire("s002_out", "s000_out"), "y0"),
    "kept": (keep("s003"), "y0"),
    "forgotten": (forget("s001"), "y0"),
    "weight": (perturb_weight, "y0"),
    "output": (scale("y0"), "y0"),
    "readout": (scale("y1"), "y1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_stream_with_a_fault_is_refused(tmp_path: Path, made: Made, name: str) -> None:
    plant, output = FAULTS[name]
    path = planted(made.stream, tmp_path / "m.onnx", plant)
    with pytest.raises(rnnx.NotStreamableError, match=f"in chunks, output '{output}' differs"):
        prove_streaming(artifact.load_graph(made.offline), path, made.contract)


@pytest.mark.parametrize("state", range(4))
@pytest.mark.parametrize("initial", [None, 0.5])
def test_a_wrong_start_is_refused(
    tmp_path: Path, made: Made, state: int, initial: float | None
) -> None:
    value = None if initial is None else np.full(5, initial, np.float32)
    states = list(made.contract.states)
    states[state] = dataclasses.replace(states[state], initial=value)
    contract = dataclasses.replace(made.contract, states=tuple(states))
    model = onnx.load(made.stream)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(rnnx.NotStreamableError, match="output 'y0' differs"):
        prove_streaming(artifact.load_graph(made.offline), tmp_path / "m.onnx", contract)


def test_a_future_that_shows_only_when_it_is_loud_is_found(tmp_path: Path) -> None:
    """Quiet frames never pass 20, so that chunks of them agree with the whole."""
    path = save_text(
        tmp_path / "m.onnx",
        "float[batch,time,4] x",
        "float[batch,time,4] y",
        "axis = Constant<value_ints=[1]>()  top = ReduceMax(x, axis)"
        "  limit = Constant<value_float=20.0>()  over = Sub(top, limit)  loud = Relu(over)"
        "  y = Add(x, loud)",
    )
    graph = artifact.load_graph(path)
    port = rnnx.Port("x", "float32", ("batch", "time", 4), 0, 1)
    contract = rnnx.Contract((port,), (dataclasses.replace(port, name="y"),), streaming=True)
    artifact.save(sealed(graph, contract), path)
    with pytest.raises(rnnx.NotStreamableError, match="frame 5 of 'x' reaches frame 0 of 'y'"):
        prove_streaming(graph, path, contract)


def sealed(graph: ir.Model, contract: rnnx.Contract) -> ir.Model:
    artifact.seal(graph, contract)
    return graph


def test_a_graph_that_does_not_load_is_an_export_error(tmp_path: Path) -> None:
    path = save_text(tmp_path / "m.onnx", "float[n] x", "float[n] y", "y = Relu(x, x)")
    with pytest.raises(rnnx.ExportError, match="onnxruntime does not accept"):
        prove_export(artifact.load_graph(path), nn.ReLU(), Layout((), ()))


def test_a_graph_that_runs_at_one_length_only_is_an_export_error(tmp_path: Path) -> None:
    body = "shape = Constant<value_ints=[2,5,4]>()  y = Reshape(x, shape)"
    path = save_text(tmp_path / "m.onnx", "float[b,t,4] x", "float[b,t,4] y", body)
    layout = Layout((X,), ({0: "batch", 1: "time"},))
    with pytest.raises(rnnx.ExportError, match=r"cannot run .* at sizes .*'time': 7") as caught:
        prove_export(artifact.load_graph(path), nn.Identity(), layout)
    assert caught.value.hint


def test_a_model_that_runs_at_one_length_only_proves_nothing(tmp_path: Path) -> None:
    path = save_text(tmp_path / "m.onnx", "float[b,t,4] x", "float[b,t,4] y", "y = Identity(x)")
    module, layout = Network(lambda p, x: x.view(2, 5, 4)), Layout((X,), ({0: "batch", 1: "time"},))
    with pytest.raises(rnnx.ExportError, match="runs at the example's sizes only") as caught:
        prove_export(artifact.load_graph(path), module, layout)
    assert caught.value.hint


def test_a_constant_is_run_for_two_sequences(tmp_path: Path) -> None:
    path = save_text(
        tmp_path / "m.onnx",
        "float[batch,time,4] x",
        "float[batch,3] y",
        "s = Shape<start=0, end=1>(x)  three = Constant<value_ints=[3]>()"
        "  to = Concat<axis=0>(s, three)  c = ConstantOfShape<value=float[1] {0.5}>(to)"
        "  y = Relu(c)",
    )
    graph = artifact.load_graph(path)
    found = WireShapes(graph, describe(graph)).constant(graph.graph.outputs[0])
    assert np.array_equal(found, np.full((2, 3), 0.5, np.float32))

"""What a step costs that carries twenty states: Stream.feed against a loop by hand.

The network is a causal one of dilated convolutions, residuals and recurrent layers, as denoisers
have them: ten caches, seven GRUs and an LSTM's two states, and a delay for a skip. The loop is
written twice, over the artifact's own graph and over its step form. Beside that, each operator that
computes is run alone, on what it gets in a step; the cost of a run that computes nothing is taken
off. What remembers and moves (Concat, Slice, Squeeze, ...) is in the loops only.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from conditions import on_one_core
from stream_step import bound_loop, dict_loop
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import rnnx
from rnnx.bench import measure
from rnnx.table import render

CHANNELS, BLOCKS, GRUS = 64, 10, 7
COMPUTING = ("Add", "Conv", "GRU", "LSTM", "Relu")
SECONDS = 1.0  # on each of some forty variants


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv1d(CHANNELS, CHANNELS, 3, dilation=2 ** (block % 5)) for block in range(BLOCKS)
        )
        self.grus = nn.ModuleList(nn.GRU(CHANNELS, CHANNELS, batch_first=True) for _ in range(GRUS))
        self.lstm = nn.LSTM(CHANNELS, CHANNELS, batch_first=True)
        self.ahead = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = x.transpose(1, 2)
        for block, convolution in enumerate(self.convolutions[:-1]):
            y = y + convolution(F.pad(y, (2 * 2 ** (block % 5), 0))).relu()
        y = y.transpose(1, 2)
        for gru in self.grus:
            y = gru(y)[0]
        y = self.lstm(y)[0]
        ahead = self.ahead(y.transpose(1, 2)).transpose(1, 2)
        return ahead + y


def main() -> None:
    torch.manual_seed(0)
    on_one_core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        contract = rnnx.export(Network(), (torch.randn(2, 40, CHANNELS),), path, streaming=True)
        print(f"{len(contract.states)} states, {sum(contract.operators.values())} operators")
        report(path)


def report(path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, CHANNELS)).astype(np.float32)
    model = rnnx.Model(path)
    stream = model.stream()
    for _ in range(100):
        stream.feed(x)
    operators = dict(single_operators(path, x, stream))
    runs: dict[str, Callable[[], object]] = {
        "two bindings by hand": bound_loop(model, x, step_form=False),
        "two bindings by hand, step form": bound_loop(model, x, step_form=True),
        "Stream.feed": lambda: stream.feed(x),
        "session.run(None, dict)": dict_loop(model, x),
        "nothing": identity(),
    }
    loops = list(runs)[:-1]
    runs |= operators
    times = {name: timing.median for name, timing in measure(runs, seconds=SECONDS).items()}
    alone = {name: times[name] - times["nothing"] for name in operators}
    total = sum(alone.values())
    kinds = {name.split()[0] for name in alone}
    rows = [
        [f"{len(of)} {kind}", f"{sum(of):.1f}", f"{sum(of) / total:.2f}"]
        for kind in sorted(kinds)
        if (of := [time for name, time in alone.items() if name.split()[0] == kind])
    ]
    rows += [["sum of operators", f"{total:.1f}", "1.00"]]
    print(render(["one step", "median us", "to the sum"], rows))
    loop, step = (times[name] for name in loops[:2])
    lines = [
        [name, f"{times[name]:.1f}", f"{times[name] / loop:.2f}", f"{times[name] / step:.2f}"]
        for name in loops
    ]
    print(render(["one step", "median us", "to the loop", "to its step"], lines))


def single_operators(
    path: Path, x: np.ndarray, stream: rnnx.Stream
) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each operator that computes, alone in a session of its own, on what it gets in a step."""
    model = ir.load(path)
    nodes = [node for node in model.graph if node.op_type in COMPUTING]
    wanted = {value.name: value for node in nodes for value in node.inputs if is_computed(value)}
    for node in nodes:
        node.metadata_props.clear()
    feeds = step_feeds(x, stream)
    values = all_values(path, list(wanted), feeds)
    for place, node in enumerate(nodes):
        taken = [value for value in node.inputs if is_computed(value)]
        for value in taken:
            value.shape = ir.Shape(values[value.name].shape)
            value.type = ir.TensorType(ir.DataType.FLOAT)
        part = ir.convenience.extract(model.graph, taken, [node.outputs[0]])
        proto = ir.to_proto(ir.Model(part, ir_version=model.ir_version))
        bound = bind(proto.SerializeToString(), {v.name: values[v.name] for v in taken})
        yield f"{node.op_type} {place}", bound


def step_feeds(x: np.ndarray, stream: rnnx.Stream) -> dict[str, np.ndarray]:
    """What a step gets: a frame, the states, and masks of frames that are all of the sequence."""
    states = {f"{name}_in": value for name, value in stream.states().items()}
    masks = stream.model.contract.masks
    return {"x": x, **states} | {p.name: np.ones(p.shape(batch=1, frames=1), bool) for p in masks}


def is_computed(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is None


def all_values(path: Path, names: list[str], feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What stands on the wires in a step."""
    model = onnx.load(path)
    known = {port.name for port in (*model.graph.input, *model.graph.output)}
    for name in set(names) - known:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    inner = [name for name in names if name not in feeds]
    return feeds | dict(zip(inner, session.run(inner, feeds), strict=True))


def identity() -> Callable[[], None]:
    """What a run costs in which nothing is computed."""
    graph = "g (float[1] x) => (float[1] y) { y = Identity(x) }"
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 18]> {graph}')
    return bind(model.SerializeToString(), {"x": np.zeros(1, np.float32)})


def bind(model: bytes, feeds: dict[str, np.ndarray]) -> Callable[[], None]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    values = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in feeds.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for name in (node.name for node in session.get_outputs()):
        binding.bind_output(name)
    session.run_with_iobinding(binding)

    def run() -> None:
        session.run_with_iobinding(binding)

    run.bound = values  # type: ignore[attr-defined]
    return run


if __name__ == "__main__":
    main()

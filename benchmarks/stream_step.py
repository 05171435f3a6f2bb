"""What a step of one frame costs: Stream.feed against a hand-written loop over onnxruntime.

The loop is the fastest that onnxruntime's public Python API allows: two bindings made once, the
states going from one to the other and back. All variants run in turn in one process on one core.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from rnnx import Contract, Model, Port, State
from rnnx.bench import measure
from rnnx.table import render
from rnnx_runtime.contract import METADATA_KEY

NETWORKS = (("GRU", 64, 64), ("LSTM", 64, 256))
GATES = {"GRU": 3, "LSTM": 4}
STATES = {"GRU": "h", "LSTM": "hc"}
SECONDS = 5.0


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"Python {platform.python_version()}, numpy {np.__version__},", end=" ")
    print(f"onnxruntime {ort.__version__}, {platform.machine()}, one core")
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for network in NETWORKS for row in rows_of(Path(folder), *network)]
    print(render(["one step", "median us", "p95 us", "p99 us", "to the loop"], rows))


def rows_of(folder: Path, operator: str, features: int, hidden_size: int) -> list[list[str]]:
    path = folder / f"{operator}.onnx"
    write_artifact(path, operator, features, hidden_size)
    model = Model(path)
    x = np.random.default_rng(0).standard_normal((1, 1, features)).astype(np.float32)
    stream = model.stream()
    runs: dict[str, Callable[[], np.ndarray]] = {
        "two bindings by hand": bound_loop(model, x),
        "Stream.feed": lambda: stream.feed(x),
        "session.run(None, dict)": dict_loop(model, x),
    }
    for _ in range(3):
        first, *others = [run() for run in runs.values()]
        assert all(np.array_equal(first, other) for other in others), "they do different work"
    name = f"{operator} {hidden_size}"
    return [
        [f"{name}, {variant}", *(f"{v:.1f}" for v in (t.median, t.p95, t.p99)), f"{t.ratio:.2f}"]
        for variant, t in measure(runs, seconds=SECONDS).items()
    ]


def bound_loop(model: Model, x: np.ndarray) -> Callable[[], np.ndarray]:
    """Copy in, run the binding whose turn it is, copy out."""
    contract = model.contract
    (port_in,), (port_out,) = contract.inputs, contract.outputs
    taken, given = (allocate(port.shape(batch=1, frames=1)) for port in (port_in, port_out))
    sides = [[allocate(state.shape(batch=1)) for state in contract.states] for _ in range(2)]
    bindings = []
    for read, write in (sides, sides[::-1]):
        binding = model.session.io_binding()
        binding.bind_ortvalue_input(port_in.name, taken)
        binding.bind_ortvalue_output(port_out.name, given)
        for state, before, after in zip(contract.states, read, write, strict=True):
            before.numpy()[...] = 0
            binding.bind_ortvalue_input(state.input_name, before)
            binding.bind_ortvalue_output(state.output_name, after)
        bindings.append(binding)
    run, view, result, side = model.session.run_with_iobinding, taken.numpy(), given.numpy(), 0

    def step() -> np.ndarray:
        nonlocal side
        view[...] = x
        run(bindings[side])
        side ^= 1
        return result.copy()

    # onnxruntime before 1.29 does not keep alive what is bound.
    step.bound = (taken, given, sides)  # type: ignore[attr-defined]
    return step


def dict_loop(model: Model, x: np.ndarray) -> Callable[[], np.ndarray]:
    """Hand the states over as arrays, as most code does."""
    contract, run = model.contract, model.session.run
    feeds = {state.input_name: state.start(batch=1) for state in contract.states}
    names = tuple(feeds)
    feeds[contract.inputs[0].name] = x

    def step() -> np.ndarray:
        y, *states = run(None, feeds)
        feeds.update(zip(names, states, strict=True))
        return y

    return step


def allocate(shape: tuple[int, ...]) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.float32)


def write_artifact(path: Path, operator: str, features: int, hidden_size: int) -> None:
    """One recurrent layer between `x` and `y`, both [batch, time, ...], as rnnx exports it."""
    kinds, gates = STATES[operator], GATES[operator]
    states = [State(f"s{i:03}", "float32", ("batch", hidden_size), k) for i, k in enumerate(kinds)]
    named = {kind: state.name for kind, state in zip(kinds, states, strict=True)}
    ins = "".join(f", float[batch, {hidden_size}] {s.input_name}" for s in states)
    outs = "".join(f", float[batch, {hidden_size}] {s.output_name}" for s in states)
    enter = "\n".join(f"{k}0 = Unsqueeze({name}_in, axis0)" for k, name in named.items())
    leave = "\n".join(f"{name}_out = Squeeze(Y_{k}, axis0)" for k, name in named.items())
    extra = ", linear_before_reset=1" if operator == "GRU" else ""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": 18]>
        step (float[batch, time, {features}] x{ins})
            => (float[batch, time, {hidden_size}] y{outs})
            <int64[1] axis0 = {{0}}, int64[1] axis1 = {{1}}>
        {{
            xt = Transpose<perm=[1, 0, 2]>(x)
            {enter}
            Y, {", ".join(f"Y_{k}" for k in kinds)} = {operator}<hidden_size={hidden_size}{extra}>
                (xt, W, R, B, "", {", ".join(f"{k}0" for k in kinds)})
            yt = Squeeze(Y, axis1)
            y = Transpose<perm=[1, 0, 2]>(yt)
            {leave}
        }}
    """)
    rng = np.random.default_rng(0)
    shapes = {"W": (gates * hidden_size, features), "R": (gates * hidden_size, hidden_size)}
    for name, shape in (shapes | {"B": (2 * gates * hidden_size,)}).items():
        weights = rng.normal(0, 0.1, (1, *shape)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    contract = Contract(
        inputs=(Port("x", "float32", ("batch", "time", features), 0, 1),),
        outputs=(Port("y", "float32", ("batch", "time", hidden_size), 0, 1),),
        states=tuple(states),
        streaming=True,
    )
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)


if __name__ == "__main__":
    main()

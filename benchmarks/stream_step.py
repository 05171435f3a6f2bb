"""What a step of one frame costs: Stream.feed against a hand-written loop over onnxruntime.

The loop is the fastest that onnxruntime's public Python API allows: two bindings made once, the
states going from one to the other and back. It is written twice, over the artifact's own graph and
over its step form. All variants run in turn in one process on one core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from conditions import on_one_core
from onnx import numpy_helper

from rnnx import Contract, Model, Port, State, load_contract
from rnnx.bench import measure
from rnnx.table import render
from rnnx_exporters import artifact
from rnnx_exporters.step_record import attach_step
from rnnx_runtime.contract import METADATA_KEY

NETWORKS = (("GRU", 64, 64), ("LSTM", 64, 256))
GATES = {"GRU": 3, "LSTM": 4}
STATES = {"GRU": "h", "LSTM": "hc"}
SECONDS = 5.0


def main() -> None:
    on_one_core()
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for network in NETWORKS for row in rows_of(Path(folder), *network)]
    print(render(["one step", "median us", "p95 us", "p99 us", "to the loop", "to its step"], rows))


def rows_of(folder: Path, operator: str, features: int, hidden_size: int) -> list[list[str]]:
    plain, path = folder / f"{operator}.plain.onnx", folder / f"{operator}.onnx"
    write_artifact(plain, operator, features, hidden_size)
    add_step_form(plain, path)
    model = Model(path)
    x = np.random.default_rng(0).standard_normal((1, 1, features)).astype(np.float32)
    own, step = Model(plain).stream(), model.stream()
    runs: dict[str, Callable[[], np.ndarray]] = {
        "two bindings by hand": bound_loop(model, x, step_form=False),
        "Stream.feed, no step form": lambda: own.feed(x),
        "two bindings by hand, step form": bound_loop(model, x, step_form=True),
        "Stream.feed": lambda: step.feed(x),
        "session.run(None, dict)": dict_loop(model, x),
    }
    for _ in range(3):
        first, *others = [run() for run in runs.values()]
        assert all(np.array_equal(first, other) for other in others), "they do different work"
    name = f"{operator} {hidden_size}"
    timings = measure(runs, seconds=SECONDS)
    by_hand = timings["two bindings by hand, step form"].median
    return [
        [
            f"{name}, {variant}",
            *(f"{v:.1f}" for v in (t.median, t.p95, t.p99)),
            f"{t.ratio:.2f}",
            f"{t.median / by_hand:.2f}",
        ]
        for variant, t in timings.items()
    ]


def bound_loop(model: Model, x: np.ndarray, *, step_form: bool) -> Callable[[], np.ndarray]:
    """Copy in, run the binding whose turn it is, copy out."""
    contract, step = model.contract, model.step if step_form else None
    session = model.session if step is None else step.session
    (port_in,), (port_out,) = contract.inputs, contract.outputs
    taken, given = (np.zeros(p.shape(batch=1, frames=1), np.float32) for p in (port_in, port_out))
    sides = [[np.zeros(s.shape(batch=1), s.dtype) for s in contract.states] for _ in range(2)]
    masks = masks_of(contract)
    bindings = []
    for read, write in (sides, sides[::-1]):
        binding = session.io_binding()
        ins = (
            {port_in.name: taken}
            | ({} if step else masks)
            | {s.input_name: a for s, a in zip(contract.states, read, strict=True)}
        )
        outs = {port_out.name: given} | {
            s.output_name: a for s, a in zip(contract.states, write, strict=True)
        }
        for name, array in ins.items():
            shape = array.shape if step is None else step.shapes[name]
            binding.bind_input(name, "cpu", 0, array.dtype.type, shape, array.ctypes.data)
        for name, array in outs.items():
            shape = array.shape if step is None else step.shapes[name]
            binding.bind_output(name, "cpu", 0, np.float32, shape, array.ctypes.data)
        bindings.append(binding)
    run, side = session.run_with_iobinding, 0

    def step_by_hand(bound: object = (sides, masks)) -> np.ndarray:  # which holds what is bound
        nonlocal side
        taken[...] = x
        run(bindings[side])
        side ^= 1
        return given.copy()

    return step_by_hand


def masks_of(contract: Contract) -> dict[str, np.ndarray]:
    """Inside a sequence every frame is of it."""
    return {port.name: np.ones(port.shape(batch=1, frames=1), bool) for port in contract.masks}


def dict_loop(model: Model, x: np.ndarray) -> Callable[[], np.ndarray]:
    """Hand the states over as arrays, as most code does."""
    contract, run = model.contract, model.session.run
    feeds = {s.input_name: np.zeros(s.shape(batch=1), s.dtype) for s in contract.states}
    names = tuple(feeds)
    feeds |= {contract.inputs[0].name: x} | masks_of(contract)

    def step() -> np.ndarray:
        y, *states = run(None, feeds)
        feeds.update(zip(names, states, strict=True))
        return y

    return step


def add_step_form(plain: Path, path: Path) -> None:
    """What the exporter does to a streaming graph before it writes it."""
    graph = artifact.load_graph(plain)
    attach_step(graph, load_contract(plain))
    artifact.save(graph, path)


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

"""Faults to plant in an artifact's ONNX file: each is a network that runs, and is the wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from rnnx_runtime.contract import METADATA_KEY

Fault = Callable[[ModelProto], None]
Array = npt.NDArray[Any]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def plant(src: Path, dst: Path, fault: Fault) -> None:
    """Copy the artifact with the fault in it; its contract stays, where the fault leaves it."""
    model = onnx.load(src)
    before = model.SerializeToString()
    fault(model)
    assert model.SerializeToString() != before, "the fault changed nothing"
    onnx.save(model, dst)


def edit_contract(model: ModelProto, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change the contract's record in the file's metadata."""
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    record = json.loads(entry.value)
    edit(record)
    entry.value = json.dumps(record)


def layer(model: ModelProto, index: int = 0) -> NodeProto:
    """The recurrent node number `index`."""
    return [node for node in model.graph.node if node.op_type in GATES][index]


def change_weight(
    model: ModelProto, node: NodeProto, letter: str, change: Callable[[Array], Array]
) -> None:
    """Replace the weight W, R or B of a recurrent node, `[directions, ...]`."""
    name = node.input[" WRB".index(letter)]
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    value = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def roll_gates(index: int) -> Fault:
    """Every gate takes the weights of the next."""

    def fault(model: ModelProto) -> None:
        node = layer(model, index)
        count = GATES[node.op_type]
        for letter in "WRB":
            change_weight(model, node, letter, lambda value: _rolled(value, count))

    return fault


def _rolled(value: Array, gates: int) -> Array:
    halves = np.split(value, 2, axis=1) if value.ndim == 2 else [value]  # B is that of W and of R
    rolled = [np.roll(half, half.shape[1] // gates, axis=1) for half in halves]
    return np.concatenate(rolled, axis=1)


def weight(index: int, letter: str, change: Callable[[Array], Array]) -> Fault:
    return lambda model: change_weight(model, layer(model, index), letter, change)


def transpose_gates(value: Array) -> Array:
    """Every gate's square matrix of R transposed."""
    hidden = value.shape[2]
    return value.reshape(len(value), -1, hidden, hidden).swapaxes(2, 3).reshape(value.shape)


def without_half(value: Array) -> Array:
    """B without its recurrent half."""
    input_half, recurrent_half = np.split(value, 2, axis=1)
    return np.concatenate([input_half, np.zeros_like(recurrent_half)], axis=1)


def with_nan(value: Array) -> Array:
    changed = value.copy()
    changed.flat[-1] = np.nan
    return changed


def reverse_directions(model: ModelProto) -> None:
    for letter in "WRB":
        change_weight(model, layer(model), letter, lambda value: value[::-1])


def exchange_layers(model: ModelProto) -> None:
    """Layer 0 and 1 take each other's weights, which have the same shapes."""
    lower, upper = layer(model, 0), layer(model, 1)
    for position in (1, 2, 3):
        lower.input[position], upper.input[position] = upper.input[position], lower.input[position]


def no_input(index: int, position: int) -> Fault:
    """A recurrent node loses the input at `position`: 3 is B, 5 the hidden, 6 the cell state."""

    def fault(model: ModelProto) -> None:
        layer(model, index).input[position] = ""

    return fault


def exchange_states_in(index: int) -> Fault:
    def fault(model: ModelProto) -> None:
        node = layer(model, index)
        node.input[5], node.input[6] = node.input[6], node.input[5]

    return fault


def exchange_states_out(index: int) -> Fault:
    def fault(model: ModelProto) -> None:
        node = layer(model, index)
        node.output[1], node.output[2] = node.output[2], node.output[1]

    return fault


def attribute(name: str, value: Any) -> Fault:
    """Set an attribute of the first recurrent node."""

    def fault(model: ModelProto) -> None:
        node = layer(model)
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return fault


def exchange_outputs(first: str, second: str) -> Fault:
    """Two outputs of the graph are fed from each other's place."""

    def fault(model: ModelProto) -> None:
        names = {first: second, second: first}
        for node in model.graph.node:
            for position, name in enumerate(node.output):
                node.output[position] = names.get(name, name)

    return fault


def after(output: str, *chain: tuple[str, list[Array], dict[str, Any]]) -> Fault:
    """Put a chain of nodes (operator, constants, attributes) between a value and an output."""

    def fault(model: ModelProto) -> None:
        source = _moved_away(model, output)
        for step, (operator, constants, attributes) in enumerate(chain):
            names = [f"planted{step}_{number}" for number in range(len(constants))]
            pairs = zip(names, constants, strict=True)
            model.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in pairs)
            result = output if step == len(chain) - 1 else f"planted{step}"
            model.graph.node.append(
                helper.make_node(operator, [source, *names], [result], **attributes)
            )
            source = result

    return fault


def _moved_away(model: ModelProto, output: str) -> str:
    """Free the name of an output, and return the new name of what fed it."""
    for node in model.graph.node:
        for position, name in enumerate(node.output):
            if name == output:
                node.output[position] = f"{output}_right"
    return f"{output}_right"


def scaled(output: str, factor: float) -> Fault:
    return after(output, ("Mul", [np.array(factor, np.float32)], {}))


def late(output: str) -> Fault:
    """The output, `[batch, time, features]`, comes one frame late; the last frame is lost."""
    pads = np.array([0, 1, 0, 0, -1, 0])
    return after(output, ("Pad", [pads], {}))


def as_double(output: str) -> Fault:
    """The output becomes float64, in the graph and in the contract."""

    def fault(model: ModelProto) -> None:
        after(output, ("Cast", [], {"to": TensorProto.DOUBLE}))(model)
        (value,) = (value for value in model.graph.output if value.name == output)
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
        edit_contract(model, lambda record: record["outputs"][0].update(dtype="float64"))

    return fault


def state_stands_still(state: str) -> Fault:
    """The state's output is its input."""

    def fault(model: ModelProto) -> None:
        _moved_away(model, f"{state}_out")
        model.graph.node.append(
            helper.make_node("Identity", [f"{state}_in"], [f"{state}_out"], name="stuck")
        )

    return fault


def no_lengths(model: ModelProto) -> None:
    """No recurrent node is told how long the sequences are."""
    for node in model.graph.node:
        if node.op_type in GATES:
            node.input[4] = ""


def early(output: str) -> Fault:
    """The output, `[batch, time, features]`, tells the next frame instead of this one."""
    pads = np.array([0, -1, 0, 0, 1, 0])
    return after(output, ("Pad", [pads], {}))


def moved_cache(state: str) -> Fault:
    """A cache keeps as many frames as before, each the one before it."""

    def fault(model: ModelProto) -> None:
        (node,) = (n for n in model.graph.node if n.output[0] == f"{state}_out")
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        first = numpy_helper.to_array(tensors[node.input[1]])
        for position, value in ((1, first - 1), (2, np.array([-1]))):
            name = f"planted{position}"
            model.graph.initializer.append(numpy_helper.from_array(value, name))
            node.input[position] = name

    return fault


def constant(name: str, change: Callable[[Array], Array]) -> Fault:
    """Change an initializer by its name."""

    def fault(model: ModelProto) -> None:
        (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
        value = np.ascontiguousarray(change(numpy_helper.to_array(tensor)))
        tensor.CopyFrom(numpy_helper.from_array(value, name))

    return fault


def operand(operator: str, change: Callable[[Array], Array]) -> Fault:
    """Change the weight of the first node of an operator."""

    def fault(model: ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == operator)
        constant(node.input[1], change)(model)

    return fault


def with_noise(model: ModelProto) -> None:
    """`y` comes with a little noise, less than the tolerance, that is another in every call."""
    source, noise = _moved_away(model, "y"), "planted_noise"
    model.graph.node.extend(
        [
            helper.make_node("RandomUniformLike", [source], [noise], low=0.0, high=1e-6),
            helper.make_node("Add", [source, noise], ["y"]),
        ]
    )


def neighbours_in(output: str) -> Fault:
    """A thousandth of the batch's mean is in every row of an output, `[batch, ...]`."""

    def fault(model: ModelProto) -> None:
        source = _moved_away(model, output)
        axes = numpy_helper.from_array(np.array([0]), "planted_axes")
        share = numpy_helper.from_array(np.array(1e-3, np.float32), "planted_share")
        model.graph.initializer.extend([axes, share])
        model.graph.node.extend(
            [
                helper.make_node("ReduceMean", [source, axes.name], ["planted_mean"]),
                helper.make_node("Mul", ["planted_mean", share.name], ["planted_leak"]),
                helper.make_node("Add", [source, "planted_leak"], [output]),
            ]
        )

    return fault


def mask_ignored(model: ModelProto) -> None:
    """What the first layer makes of the zeros behind the end is taken for frames."""
    (where,) = (node for node in model.graph.node if node.op_type == "Where")
    where.input[2] = where.input[1]


def caches_start_later(model: ModelProto) -> None:
    """Every cache begins with one frame more."""
    edit_contract(
        model,
        lambda record: [c.update(start_frames=c["start_frames"] + 1) for c in _caches(record)],
    )


def delay(frames: int) -> Fault:
    """The contract tells another delay of the first output."""
    return lambda model: edit_contract(
        model, lambda record: record["outputs"][0].update(delay=frames)
    )


def caches_filled_by_ones(model: ModelProto) -> None:
    edit_contract(model, lambda record: [c.update(fill=1.0) for c in _caches(record)])


def _caches(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [state for state in record["states"] if state["kind"] == "cache"]


def table_row(row: int) -> Fault:
    """One row of the embedding is another."""

    def fault(model: ModelProto) -> None:
        (node,) = (node for node in model.graph.node if node.op_type == "Gather")
        (tensor,) = (t for t in model.graph.initializer if t.name == node.input[0])
        table = numpy_helper.to_array(tensor).copy()
        table[row] += 0.5
        tensor.CopyFrom(numpy_helper.from_array(table, tensor.name))

    return fault


def forgotten_start(model: ModelProto) -> None:
    """The contract no longer tells the states' trained first value."""
    edit_contract(model, lambda record: record["states"][0].update(initial=None))

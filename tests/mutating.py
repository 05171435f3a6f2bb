"""Damage for fuzzing: bytes, JSON records and ONNX graphs, changed a little or beyond sense."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

from rnnx_runtime.contract import METADATA_KEY

NUMBERS = (-(1 << 63), -(1 << 31), -1, 0, 1, 2, 3, 7, 450, 1 << 24, 1 << 28, 1 << 31, (1 << 63) - 1)
_DEEP = json.loads("[" * 400 + "]" * 400)
_VALUES = (
    None,
    True,
    False,
    "",
    "\0",
    "time",
    "x",
    "1/2",
    "9" * 9,
    "float16",
    "bool",
    [],
    {},
    [[]],
)
_FLOATS = (0.5, -0.0, 1e308, float("inf"), float("nan"))

numbers = st.sampled_from(NUMBERS)
values = st.sampled_from((*NUMBERS, 10**30, *_FLOATS, *_VALUES, _DEEP))
operators = st.sampled_from(
    ["GRU", "LSTM", "RNN", "Identity", "Add", "MatMul", "Transpose", "Squeeze", "Loop", "Reshape"]
)


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes, other: bytes = b"") -> bytes:
    """`whole` after one to three flips, cuts, repetitions or pieces of `other` in its place."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        stop = start + draw(st.sampled_from([1, 1, 2, 4, 8, 64, 1024]))
        data = draw(st.sampled_from(_DAMAGES))(draw, data, start, stop, other or whole)
    return data


_Damage = Callable[[st.DrawFn, bytes, int, int, bytes], bytes]


def _flipped(draw: st.DrawFn, data: bytes, start: int, stop: int, other: bytes) -> bytes:
    bit = draw(st.integers(1, 255))
    return data[:start] + bytes(byte ^ bit for byte in data[start : start + 1]) + data[start + 1 :]


def _written(draw: st.DrawFn, data: bytes, start: int, stop: int, other: bytes) -> bytes:
    byte = draw(st.sampled_from([b"\0", b"\x7f", b"\x80", b"\xff", b"[", b"9"]))
    return data[:start] + byte * (stop - start) + data[stop:]


def _spliced(draw: st.DrawFn, data: bytes, start: int, stop: int, other: bytes) -> bytes:
    origin = draw(st.integers(0, len(other) - 1))
    return data[:start] + other[origin : origin + stop - start] + data[stop:]


_DAMAGES: tuple[_Damage, ...] = (
    _flipped,
    _written,
    _spliced,
    lambda draw, data, start, stop, other: data[:start],
    lambda draw, data, start, stop, other: data[:start] + data[stop:],
    lambda draw, data, start, stop, other: data[:stop] + data[start:],
)


@st.composite
def damaged_json(draw: st.DrawFn, record: dict[str, Any]) -> str:
    """The record with one to three values gone, doubled, renamed, exchanged or made absurd."""
    record = copy.deepcopy(record)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(record))
        if places:
            draw(st.sampled_from(_EDITS))(draw, *draw(st.sampled_from(places)), places)
    return json.dumps(record)


Place = tuple[Any, Any]


def _places(value: Any) -> Iterator[Place]:
    """Each container inside, with each of its keys or positions."""
    if not isinstance(value, dict | list) or value == _DEEP:
        return
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        yield from _places(value[key])


def _absurd(draw: st.DrawFn, parent: Any, key: Any, places: list[Place]) -> None:
    parent[key] = copy.deepcopy(draw(values))


def _gone(draw: st.DrawFn, parent: Any, key: Any, places: list[Place]) -> None:
    del parent[key]


def _exchanged(draw: st.DrawFn, parent: Any, key: Any, places: list[Place]) -> None:
    other, name = draw(st.sampled_from(places))
    parent[key] = copy.deepcopy(other[name])


def _doubled(draw: st.DrawFn, parent: Any, key: Any, places: list[Place]) -> None:
    if isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
    else:
        parent[f"{key}_"] = parent.pop(key)


_EDITS = (_absurd, _absurd, _gone, _exchanged, _doubled)


@st.composite
def damaged_graphs(draw: st.DrawFn, whole: bytes) -> bytes:
    """An ONNX file that can be read, but with one to three things in it that are wrong."""
    model = ModelProto.FromString(whole)
    for _ in range(draw(st.integers(1, 3))):
        draw(st.sampled_from(_GRAPH_EDITS))(draw, model)
    return model.SerializeToString()


def _edit_attribute(draw: st.DrawFn, model: ModelProto) -> None:
    node = _drawn_node(draw, model)
    if not node.attribute:
        return
    attribute = draw(st.sampled_from(list(node.attribute)))
    if attribute.type == AttributeProto.INT:
        attribute.i = draw(numbers)
    elif attribute.type == AttributeProto.INTS:
        attribute.ints.append(draw(numbers))
    else:
        attribute.type = draw(st.sampled_from([AttributeProto.INT, AttributeProto.TENSOR]))


def _rewire(draw: st.DrawFn, model: ModelProto) -> None:
    node = _drawn_node(draw, model)
    names = sorted({name for other in model.graph.node for name in (*other.input, *other.output)})
    ends = draw(st.sampled_from([node.input, node.output]))
    if ends:
        ends[draw(st.integers(0, len(ends) - 1))] = draw(st.sampled_from(["", "none", *names]))


def _edit_nodes(draw: st.DrawFn, model: ModelProto) -> None:
    node = _drawn_node(draw, model)
    kind = draw(st.sampled_from(["gone", "doubled", "operator", "domain"]))
    if kind == "gone":
        model.graph.node.remove(node)
    elif kind == "doubled":
        model.graph.node.add().CopyFrom(node)
    elif kind == "operator":
        node.op_type = draw(operators)
    else:
        node.domain = "com.microsoft"


def _drawn_node(draw: st.DrawFn, model: ModelProto) -> NodeProto:
    return draw(st.sampled_from(list(model.graph.node) or [NodeProto()]))


def _edit_weights(draw: st.DrawFn, model: ModelProto) -> None:
    tensors = list(model.graph.initializer)
    tensor = draw(st.sampled_from(tensors or [TensorProto()]))
    kind = draw(st.sampled_from(["dims", "dtype", "external", "cut"]))
    if kind == "dims" and tensor.dims:
        tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(numbers)
    elif kind == "dtype":
        tensor.data_type = draw(st.integers(0, 30))
    elif kind == "external":
        _move_out(draw, tensor)
    else:
        tensor.raw_data = tensor.raw_data[: draw(st.integers(0, 9))]


def _move_out(draw: st.DrawFn, tensor: TensorProto) -> None:
    """The weights are said to stand in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    place = st.sampled_from(
        ["", ".", "none", "../none", "/dev/zero", "/etc/passwd", "/proc/self/mem"]
    )
    for key, value in (
        ("location", draw(place)),
        ("offset", draw(numbers)),
        ("length", draw(numbers)),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def _edit_ports(draw: st.DrawFn, model: ModelProto) -> None:
    port = draw(st.sampled_from([*model.graph.input, *model.graph.output]))
    kind = draw(st.sampled_from(["dtype", "dim", "rank", "name"]))
    tensor = port.type.tensor_type
    if kind == "dtype":
        tensor.elem_type = draw(st.integers(0, 30))
    elif kind == "dim" and tensor.shape.dim:
        draw(st.sampled_from(list(tensor.shape.dim))).dim_value = draw(numbers)
    elif kind == "rank":
        tensor.shape.dim.add().dim_value = 1
    else:
        port.name = draw(st.sampled_from(["", "x", "y", "s000_in", "s000_out", "s001_in"]))


def _edit_metadata(draw: st.DrawFn, model: ModelProto) -> None:
    (*_, entry) = model.metadata_props or [model.metadata_props.add()]
    if draw(st.booleans()):
        model.metadata_props.add().CopyFrom(entry)
    entry.key = draw(st.sampled_from([METADATA_KEY, "", "rnnx", METADATA_KEY + "\0"]))
    entry.value = draw(st.sampled_from([entry.value, "", "{}", "\0", entry.value * 3]))


def _edit_versions(draw: st.DrawFn, model: ModelProto) -> None:
    model.ir_version = draw(st.sampled_from([model.ir_version, *NUMBERS]))
    model.opset_import[0].version = draw(st.sampled_from([7, 13, 18, *NUMBERS]))


_GRAPH_EDITS: tuple[Callable[[st.DrawFn, ModelProto], None], ...] = (
    _edit_attribute,
    _rewire,
    _edit_nodes,
    _edit_weights,
    _edit_ports,
    _edit_metadata,
    _edit_versions,
)

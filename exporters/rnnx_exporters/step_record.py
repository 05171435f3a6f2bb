"""Puts the step form of a streaming graph into its metadata, where it makes steps cheaper."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from rnnx_exporters.step_form import step_form
from rnnx_runtime.contract import DTYPES, Contract
from rnnx_runtime.step import LOCATION, METADATA_KEY, pack

Array = npt.NDArray[Any]

# A step of a larger network waits for its weights, not for operators: an LSTM of 512 gained 7 %.
_LARGEST = 4 << 20
_LARGEST_GRAPH = 1 << 16  # bytes: what it says twice must be little
_SMALL = 128  # bytes of a weight that may be said twice


def attach_step(model: ir.Model, contract: Contract) -> None:
    """Add the step form to the metadata of `model`, or take away what was that of another graph."""
    model.metadata_props.pop(METADATA_KEY, None)
    if not _may_gain(model, contract):
        return
    step = step_form(model, contract)
    if _operators(step) == _operators(model):
        return
    proto, file = _bare(ir.to_proto(step)), ir.to_proto(model).SerializeToString()
    places = [(tensor, _place(file, tensor)) for tensor in proto.graph.initializer]
    weights = {tensor.name: (_taken_out(tensor), start) for tensor, start in places if start >= 0}
    graph = proto.SerializeToString()
    if len(graph) <= _LARGEST_GRAPH:
        model.metadata_props[METADATA_KEY] = pack(
            graph, weights, frames=contract.chunk_multiple, operators=len(step.graph)
        )


def _operators(model: ir.Model) -> int:
    return sum(1 for _ in model.graph.all_nodes())


def _may_gain(model: ir.Model, contract: Contract) -> bool:
    weights = (value.const_value for value in model.graph.initializers.values())
    small = sum(weight.nbytes for weight in weights if weight is not None) <= _LARGEST
    return contract.streaming and contract.chunk is None and small


def _bare(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Without what only people read: the names of nodes, the shapes of wires."""
    proto.graph.ClearField("value_info")
    for node in proto.graph.node:
        node.ClearField("name")
        node.ClearField("metadata_props")
    return proto


def _place(file: bytes, tensor: onnx.TensorProto) -> int:
    """Where the artifact's file holds a weight, -1 if not. Metadata comes last: nothing moves."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if dtype.name not in DTYPES or len(tensor.raw_data) <= _SMALL:
        return -1
    return file.find(tensor.raw_data)


def _taken_out(tensor: onnx.TensorProto) -> Array:
    """The weight, whose tensor then says that it stands elsewhere."""
    weight = onnx.numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=LOCATION)
    return weight

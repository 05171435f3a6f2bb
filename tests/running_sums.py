"""Streaming artifacts whose answers anyone can add up: running sums, in any layout and dtype."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from rnnx_runtime import Contract, Port, State
from rnnx_runtime.contract import METADATA_KEY, Dims

_ONNX = {"float32": "float", "float64": "double", "int64": "int64", "int32": "int32"}


def running_sum(
    path: Path,
    *,
    dims: Dims = ("batch", "time", 2),
    dtype: str = "float32",
    inputs: Sequence[str] = ("x",),
    outputs: Sequence[str] = ("y",),
    table: npt.NDArray[Any] | None = None,
    **facts: Any,
) -> Contract:
    """Write an artifact that adds up its inputs from frame to frame.

    Outputs may be `y`, the sum after each frame, and `total`, the sum so far, without a time axis.
    With a `table` [ids, values], the inputs are int64 ids `dims[:-1]` of its rows. `facts` go into
    the contract.
    """
    time = dims.index("time")
    batch = dims.index("batch") if "batch" in dims else None
    state_dims: Dims = tuple(d for d in dims if d != "time") if batch is not None else (1, dims[1])
    taken = dims if table is None else dims[:-1]
    taken_dtype = dtype if table is None else "int64"
    ids = None if table is None else len(table)
    contract = Contract(
        inputs=tuple(
            Port(name, taken_dtype, taken, batch, time, num_embeddings=ids) for name in inputs
        ),
        outputs=tuple(
            Port(name, dtype, dims, batch, time)
            if name == "y"
            else Port(name, dtype, state_dims, None if batch is None else 0)
            for name in outputs
        ),
        states=(State("s000", dtype, state_dims, kind="sum"),),
        streaming=True,
        fingerprint=f"running sum {dims} {dtype} {list(inputs)} {list(outputs)}",
        **facts,
    )
    model = onnx.parser.parse_model(_text(contract, time, batch is not None, table is not None))
    if table is not None:
        model.graph.initializer.append(numpy_helper.from_array(table.astype(dtype), "table"))
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)
    return contract


def _text(contract: Contract, time: int, batched: bool, looked_up: bool) -> str:
    (state,) = contract.states
    ins = [*(_declared(p.dtype, p.dims, p.name) for p in contract.inputs)]
    outs = [*(_declared(p.dtype, p.dims, p.name) for p in contract.outputs)]
    ins.append(_declared(state.dtype, state.dims, state.input_name))
    outs.append(_declared(state.dtype, state.dims, state.output_name))
    first, *others = [port.name for port in contract.inputs]
    added = "all0 = " + (f"Gather(table, {first})" if looked_up else f"Identity({first})")
    more = [f"all{i} = Add(all{i - 1}, {name})" for i, name in enumerate(others, start=1)]
    frames = f"all{len(others)}"
    lines = [
        added,
        *more,
        f"axis = Constant<value_int={time}>()",
        f"axes = Constant<value_ints=[{time}]>()",
        f"sums = CumSum({frames}, axis)",
        "before = " + ("Unsqueeze(s000_in, axes)" if batched else "Identity(s000_in)"),
        "y = Add(sums, before)",
        f"last = ReduceSum<keepdims={int(not batched)}>({frames}, axes)",
        "s000_out = Add(s000_in, last)",
        "total = Identity(s000_out)",
    ]
    return (
        f'<ir_version: 10, opset_import: ["": 18]> sums ({", ".join(ins)}) => ({", ".join(outs)})'
        f" {{ {chr(10).join(lines)} }}"
    )


def _declared(dtype: str, dims: Dims, name: str) -> str:
    return f"{_ONNX[dtype]}[{', '.join(map(str, dims))}] {name}"


def frames(count: int, features: int = 2, *, seed: int = 0) -> npt.NDArray[np.float32]:
    """`[count, features]` of small whole numbers, whose float32 sums are exact."""
    return np.random.default_rng(seed).integers(-8, 9, (count, features)).astype(np.float32)

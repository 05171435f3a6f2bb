"""A contract as JSON: written, read back, and held, since whoever wrote it is not trusted."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np

from rnnx_runtime.contract import (
    DTYPES,
    MAX_BYTES,
    MAX_ELEMENTS,
    MAX_FRAMES,
    MAX_PORTS,
    VERSION,
    Contract,
    Dims,
    Port,
    State,
)
from rnnx_runtime.count import Count
from rnnx_runtime.errors import ArtifactError

_Named = TypeVar("_Named", Port, State)


def write(contract: Contract) -> str:
    """The contract as one line of JSON."""
    record = {f.name: getattr(contract, f.name) for f in dataclasses.fields(contract)}
    for ports in ("inputs", "outputs", "masks"):
        record[ports] = [_port_record(port) for port in record[ports]]
    record["states"] = [_state_record(state) for state in contract.states]
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def read(text: str) -> Contract:
    """The contract that `write` wrote.

    Raises:
        ArtifactError: it is too large, not JSON, of another version, or a field does not fit.
    """
    try:
        return _parse(_load(text))
    except (KeyError, TypeError, ValueError, RecursionError, ArithmeticError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error


def _port_record(port: Port) -> dict[str, Any]:
    record = {f.name: getattr(port, f.name) for f in dataclasses.fields(port)}
    counts = {"count": port.count.chains, "length": port.length.chains}
    return record | counts | {"stride": str(port.stride)}


def _state_record(state: State) -> dict[str, Any]:
    record = {f.name: getattr(state, f.name) for f in dataclasses.fields(state)}
    if state.initial is not None:
        value = np.ascontiguousarray(state.initial, np.dtype(state.dtype).newbyteorder("<"))
        record["initial"] = base64.b64encode(value.tobytes()).decode("ascii")
    return record


def _load(text: str) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise ValueError(f"{len(text)} characters are more than the {MAX_BYTES} allowed")
    record = json.loads(text)
    if not isinstance(record, dict):
        raise TypeError("it is not a JSON object")
    if record.get("version") != VERSION:
        raise ValueError(f"version {record.get('version')!r} is not {VERSION}")
    return record


def _parse(record: dict[str, Any]) -> Contract:
    labels = record.get("labels")
    rate = record.get("sample_rate")
    if rate is not None and not 0 < _typed(float(rate), float, "sample_rate") < math.inf:
        raise ValueError(f"sample_rate is {rate}")
    contract = Contract(
        inputs=_unique(_port(item) for item in _listed(record["inputs"], "inputs")),
        outputs=_unique(_port(item) for item in _listed(record["outputs"], "outputs")),
        states=_unique(_state(item) for item in _listed(record["states"], "states")),
        masks=_unique(_port(item) for item in _listed(record.get("masks", []), "masks")),
        first_chunk=_positive(record.get("first_chunk", 1), "first_chunk"),
        chunk_multiple=_positive(record.get("chunk_multiple", 1), "chunk_multiple"),
        chunk=None if record.get("chunk") is None else _positive(record["chunk"], "chunk"),
        streaming=_typed(record["streaming"], bool, "streaming"),
        operators={str(k): int(v) for k, v in _typed(record["operators"], dict, "ops").items()},
        fingerprint=_typed(record["fingerprint"], str, "fingerprint"),
        sample_rate=None if rate is None else float(rate),
        labels=None if labels is None else tuple(map(str, _typed(labels, list, "labels"))),
        source=_typed(record["source"], dict, "source"),
        quantization=_optional_dict(record.get("quantization"), "quantization"),
        checked=_optional_dict(record.get("checked"), "checked"),
    )
    if [s.name for s in contract.states] != sorted(s.name for s in contract.states):
        raise ValueError("the states are not in the order of their names")
    for port in contract.masks:
        _hold_mask(port)
    if contract.streaming:
        _hold_counts(contract)
    return contract


def _hold_mask(port: Port) -> None:
    axes = (port.batch_axis, port.time_axis)
    if port.dtype != "bool" or axes != (None, 0) or any(dim != 1 for dim in port.dims[1:]):
        raise ValueError(f"{port} is no mask of frames")


def _hold_counts(contract: Contract) -> None:
    """Refuse counts of frames by which a stream could not end, or would be endless."""
    first, multiple = contract.first_chunk, contract.chunk_multiple
    if max(first, multiple) > MAX_FRAMES:
        raise ValueError(f"chunks of {first} and {multiple} frames are too long")
    if contract.chunk is not None and {first, multiple} != {contract.chunk}:
        raise ValueError(f"calls of {first}, then {multiple} frames are none of {contract.chunk}")
    for port in (*contract.outputs, *contract.masks):
        if port.time_axis is None:
            continue
        grown = {count.growth(multiple) for count in (port.count, port.length)}
        if grown != {multiple / port.stride}:
            raise ValueError(f"the stride of {port} is {port.stride}, but its counts differ")
        if port.count(first) < 1 or max(port.count(first), port.length(first)) > MAX_FRAMES:
            raise ValueError(f"the first {first} frames give {port.count(first)} of {port}")


def _port(record: Any) -> Port:
    fields = dict(_typed(record, dict, "port"))
    for name in ("count", "length"):
        fields[name] = Count.from_record(fields.pop(name, [[]]))
    fields["stride"] = _ratio(fields.pop("stride", "1"))
    port = Port(**fields)
    port = dataclasses.replace(port, dims=_dims(port.dims))
    _typed(port.name, str, "name")
    _one_of(port.dtype)
    for axis in (port.batch_axis, port.time_axis):
        if axis is not None and not 0 <= _integer(axis, "axis") < len(port.dims):
            raise ValueError(f"axis {axis} is not an axis of {port}")
    if port.batch_axis is not None and port.batch_axis == port.time_axis:
        raise ValueError(f"one axis of {port} is both batch and time")
    _typed(port.counts_frames, bool, "counts_frames")
    for name in ("delay", "skip"):
        if _integer(getattr(port, name), name) < 0:
            raise ValueError(f"the {name} of {port} is negative")
    _integer(port.lookahead, "lookahead")
    if port.receptive_field is not None:
        _integer(port.receptive_field, "receptive_field")
    if port.num_embeddings is not None and _integer(port.num_embeddings, "num_embeddings") < 1:
        raise ValueError(f"num_embeddings of {port} is {port.num_embeddings}")
    return port


def _state(record: Any) -> State:
    fields = dict(_typed(record, dict, "state"))
    encoded = fields.pop("initial", None)
    state = State(**fields)
    state = dataclasses.replace(state, dims=_dims(state.dims))
    for text in (state.name, state.kind, state.module):
        _typed(text, str, "state")
    _one_of(state.dtype)
    _integer(state.layer, "layer")
    if not _holds(state.dtype, _typed(state.fill, float, "fill")):
        raise ValueError(f"state {state.name} is filled by {state.fill}")
    if _integer(state.start_frames, "start_frames") < 0:
        raise ValueError(f"state {state.name} starts with {state.start_frames} frames")
    if not state.dims or any(isinstance(dim, str) for dim in state.dims[1:]):
        raise ValueError(f"only the first axis of state {state.name} may be free")
    if state.time_axis is not None:
        if not 0 < _integer(state.time_axis, "axis") < len(state.dims):
            raise ValueError(f"axis {state.time_axis} is not an axis of state {state.name}")
        _dims([*state.dims, state.start_frames])
    if encoded is None:
        return state
    value = np.frombuffer(base64.b64decode(encoded, validate=True), state.dtype)
    return dataclasses.replace(state, initial=value.reshape(state.shape(batch=1)[1:]))


def _holds(dtype: str, number: float) -> bool:
    """Whether an array of that dtype can hold the number."""
    kind = np.dtype(dtype).kind
    if kind == "f":
        return not math.isnan(number)
    low, high = (0, 1) if kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return low <= number <= high and number.is_integer()


def _dims(value: Any) -> Dims:
    dims = tuple(value)
    if len(dims) > 64 or any(
        not isinstance(dim, int | str) or isinstance(dim, bool) for dim in dims
    ):
        raise ValueError(f"dims {value!r} are not sizes and names")
    sizes = [dim for dim in dims if isinstance(dim, int)]
    if any(size < 0 for size in sizes) or math.prod(sizes) > MAX_ELEMENTS:
        raise ValueError(f"dims {value!r} are out of range")
    return dims


def _ratio(value: Any) -> Fraction:
    """`1/2`: few digits, since powers of ten would take forever."""
    if not re.fullmatch("[1-9][0-9]{0,7}(/[1-9][0-9]{0,7})?", _typed(value, str, "stride")):
        raise ValueError(f"the stride {value!r} is no ratio of frames")
    return Fraction(value)


def _one_of(dtype: Any) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, not an integer")
    return value


def _positive(value: Any, name: str) -> int:
    if _integer(value, name) < 1:
        raise ValueError(f"{name} is {value}")
    return int(value)


def _typed(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {type(value).__name__}, not {kind.__name__}")
    return value


def _optional_dict(value: Any, name: str) -> Any:
    return None if value is None else _typed(value, dict, name)


def _listed(value: Any, name: str) -> list[Any]:
    items: list[Any] = _typed(value, list, name)
    if len(items) > MAX_PORTS:
        raise ValueError(f"{len(items)} {name} are more than the {MAX_PORTS} allowed")
    return items


def _unique(items: Iterable[_Named]) -> tuple[_Named, ...]:
    kept = tuple(items)
    if len({item.name for item in kept}) != len(kept):
        raise ValueError("two ports or states share a name")
    return kept


def _damaged(reason: str) -> ArtifactError:
    return ArtifactError(
        f"the contract in the file's metadata is damaged: {reason}",
        hint="Export the model again with this version of rnnx.",
    )

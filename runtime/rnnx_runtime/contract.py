"""The contract: what an artifact says of itself, as JSON in the ONNX file's own metadata.

The file stays plain ONNX; any runtime may ignore the contract. rnnx reads it through onnxruntime,
treats it as untrusted input, and holds it against the graph's real inputs and outputs.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rnnx_runtime.errors import ArtifactError

METADATA_KEY = "rnnx.contract"
VERSION = 1
DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
MAX_BYTES = 16 << 20
MAX_PORTS = 4096
MAX_ELEMENTS = 1 << 28

Dims = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of an artifact.

    Attributes:
        name: its name in the graph.
        dtype: its numpy dtype name.
        dims: its shape; a string names a free axis, as in `("batch", "time", 40)`.
        batch_axis: the axis that counts sequences, or None.
        time_axis: the axis that counts frames, or None (a value for the whole call).
        delay: frames by which an output lags its input; 0 for inputs.
        num_embeddings: for integer inputs, the number of valid ids (0 .. num_embeddings - 1).
        counts_frames: whether an integer input holds the lengths of the sequences.
    """

    name: str
    dtype: str
    dims: Dims
    batch_axis: int | None = None
    time_axis: int | None = None
    delay: int = 0
    num_embeddings: int | None = None
    counts_frames: bool = False

    def shape(self, *, batch: int, frames: int) -> tuple[int, ...]:
        """The concrete shape for `batch` sequences of `frames` frames.

        Raises:
            ArtifactError: a free axis is neither the batch nor the time axis.
        """
        return tuple(self._size(axis, batch, frames) for axis in range(len(self.dims)))

    def _size(self, axis: int, batch: int, frames: int) -> int:
        if axis == self.batch_axis:
            return batch
        if axis == self.time_axis:
            return frames
        dim = self.dims[axis]
        if isinstance(dim, str):
            raise ArtifactError(f"the size of axis {axis} ({dim!r}) of {self.name!r} is not known")
        return dim

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True, slots=True)
class State:
    """One state carried from call to call, as the graph input `{name}_in` and output `{name}_out`.

    Attributes:
        name: `s000`, `s001`, ...: padded, so that order and lexicographic order agree.
        dtype: its numpy dtype name.
        dims: `("batch", hidden_size)`, batch first; `(1, hidden_size)` where batch is fixed.
        kind: `"h"` (hidden state) or `"c"` (cell state).
        module: the torch module or ONNX node whose memory it is.
        layer: the layer inside that module.
        initial: the first value of one sequence, shape `dims[1:]`; None means zeros.
    """

    name: str
    dtype: str
    dims: Dims
    kind: str = "h"
    module: str = ""
    layer: int = 0
    initial: npt.NDArray[Any] | None = field(default=None, compare=False)

    @property
    def input_name(self) -> str:
        """The graph input that takes the state in."""
        return f"{self.name}_in"

    @property
    def output_name(self) -> str:
        """The graph output that gives the state back."""
        return f"{self.name}_out"

    def shape(self, *, batch: int) -> tuple[int, ...]:
        """The concrete shape for `batch` sequences."""
        return tuple(batch if isinstance(dim, str) else dim for dim in self.dims)

    def start(self, *, batch: int) -> npt.NDArray[Any]:
        """The state of `batch` sequences before their first frame, shape `shape(batch=batch)`."""
        start = np.zeros(self.shape(batch=batch), self.dtype)
        if self.initial is not None:
            start[:] = self.initial
        return start


@dataclass(frozen=True, slots=True)
class Contract:
    """What an artifact says of itself.

    Attributes:
        streaming: True if it runs chunk by chunk with its states carried.
        inputs, outputs: the ports a user sees, without the states.
        states: the states, in the order of their names.
        operators: how often each operator occurs in the graph.
        fingerprint: SHA-256 over the graph and its weights, in hex.
        sample_rate: input frames per second, where known.
        labels: names of the classes of the last axis of the first output, where known.
        source: where it came from: versions, the torch model's class.
        quantization: the level, what was changed and the measured quality, or None.
        checked: what the last check measured, or None.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    states: tuple[State, ...] = ()
    streaming: bool = False
    operators: Mapping[str, int] = field(default_factory=dict)
    fingerprint: str = ""
    sample_rate: float | None = None
    labels: tuple[str, ...] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    quantization: Mapping[str, Any] | None = None
    checked: Mapping[str, Any] | None = None
    version: int = VERSION

    @property
    def delay(self) -> int:
        """Frames by which the slowest output lags its input."""
        return max((port.delay for port in self.outputs), default=0)

    def to_json(self) -> str:
        """This contract as one line of JSON."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        record["inputs"] = [dataclasses.asdict(port) for port in self.inputs]
        record["outputs"] = [dataclasses.asdict(port) for port in self.outputs]
        record["states"] = [_state_record(state) for state in self.states]
        return json.dumps(record, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read a contract written by `to_json`.

        Raises:
            ArtifactError: it is too large, not JSON, of another version, or a field does not fit.
        """
        try:
            return _parse(_load(text))
        except (KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
            raise _damaged(f"{type(error).__name__}: {error}") from error


_Named = TypeVar("_Named", Port, State)


def load_contract(path: str | os.PathLike[str]) -> Contract:
    """Read the contract of the artifact at `path`.

    Raises:
        ArtifactError: the file is missing, is not ONNX, or carries no valid contract.
    """
    from rnnx_runtime.session import open_session, read_contract

    return read_contract(open_session(path, optimize=False), path)


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
    return contract


def _port(record: Any) -> Port:
    port = Port(**_typed(record, dict, "port"))
    port = dataclasses.replace(port, dims=_dims(port.dims))
    _typed(port.name, str, "name")
    _one_of(port.dtype)
    for axis in (port.batch_axis, port.time_axis):
        if axis is not None and not 0 <= _integer(axis, "axis") < len(port.dims):
            raise ValueError(f"axis {axis} is not an axis of {port}")
    if port.batch_axis is not None and port.batch_axis == port.time_axis:
        raise ValueError(f"one axis of {port} is both batch and time")
    _typed(port.counts_frames, bool, "counts_frames")
    if _integer(port.delay, "delay") < 0:
        raise ValueError(f"the delay of {port} is negative")
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
    if not state.dims or any(isinstance(dim, str) for dim in state.dims[1:]):
        raise ValueError(f"only the first axis of state {state.name} may be free")
    if encoded is None:
        return state
    value = np.frombuffer(base64.b64decode(encoded, validate=True), state.dtype)
    return dataclasses.replace(state, initial=value.reshape(state.shape(batch=1)[1:]))


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


def _one_of(dtype: Any) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")


def _integer(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, not an integer")
    return value


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

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
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from rnnx_runtime.count import Count
from rnnx_runtime.errors import ArtifactError

METADATA_KEY = "rnnx.contract"
VERSION = 1
DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
MAX_BYTES = 16 << 20
MAX_PORTS = 4096
MAX_ELEMENTS = 1 << 28
MAX_FRAMES = 1 << 24  # that a stream holds back, or adds at an end

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
        delay: input frames by which an output lags the input; 0 for inputs.
        stride: input frames for one frame here.
        count: frames that have come out here after so many input frames, while a stream goes on.
        length: frames here over a whole sequence of so many input frames.
        skip: frames at the start of a stream that stand for nothing and are dropped.
        lookahead: how many input frames after its own an output frame depends on.
        receptive_field: how many input frames an output frame depends on; None for all before it.
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
    stride: Fraction = Fraction(1)
    count: Count = field(default_factory=Count)
    length: Count = field(default_factory=Count)
    skip: int = 0
    lookahead: int = 0
    receptive_field: int | None = None

    @property
    def batch_size(self) -> int | str | None:
        """The size of the batch axis, its name where it is free; None without one."""
        return None if self.batch_axis is None else self.dims[self.batch_axis]

    def sees(self, frame: int) -> tuple[int, int]:
        """The first and the last input frame that output frame `frame` depends on.

        Frames before the sequence begins or after it ends are padding; 0 is the first of a
        recurrent network's, which remembers everything.
        """
        last = math.floor(frame * self.stride) + self.lookahead
        first = 0 if self.receptive_field is None else last - self.receptive_field + 1
        return first, last

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
        kind: `"h"` (hidden state), `"c"` (cell state), `"cache"` (frames still needed), `"sum"`
            (a running sum), `"last"` (the last frame), `"carry"` (what a Scan carries).
        module: the torch module or ONNX node whose memory it is.
        layer: the layer inside that module.
        initial: the first value of one sequence, shape `dims[1:]`; None means `fill` everywhere.
        fill: the first value of all elements.
        time_axis: the axis of a cache that counts frames, or None.
        start_frames: how many frames a cache holds before the first call.
    """

    name: str
    dtype: str
    dims: Dims
    kind: str = "h"
    module: str = ""
    layer: int = 0
    initial: npt.NDArray[Any] | None = field(default=None, compare=False)
    fill: float = 0.0
    time_axis: int | None = None
    start_frames: int = 0

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
        """The state of `batch` sequences before their first frame, shape `shape(batch=batch)`.

        A cache is shorter then, or longer: it holds `start_frames` frames.
        """
        shape = list(self.shape(batch=batch))
        if self.time_axis is not None:
            shape[self.time_axis] = self.start_frames
        with np.errstate(over="ignore"):  # what is too large for float16 is infinite
            start = np.full(shape, self.fill, self.dtype)
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
        masks: graph inputs that are True at the frames of the sequence and False behind its end;
            a stream fills them in.
        first_chunk: the least number of frames that the first call takes; offline, any call.
        chunk_multiple: of how many frames all that follow is a multiple.
        chunk: the number of frames that every call takes, if it is fixed.
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
    masks: tuple[Port, ...] = ()
    first_chunk: int = 1
    chunk_multiple: int = 1
    chunk: int | None = None
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

    @property
    def lags(self) -> bool:
        """Whether a stream holds frames back, so that the end of a sequence takes a run of its own.

        Without masks, a chunk of one frame and every frame out at once, nothing is held back.
        """
        one = (self.first_chunk, self.chunk_multiple) == (1, 1)
        held = bool(self.masks) or not one or any(p.count != p.length for p in self.outputs)
        return self.streaming and held

    def to_json(self) -> str:
        """This contract as one line of JSON."""
        record = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for ports in ("inputs", "outputs", "masks"):
            record[ports] = [_port_record(port) for port in record[ports]]
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
        except (KeyError, TypeError, ValueError, RecursionError, ArithmeticError) as error:
            raise _damaged(f"{type(error).__name__}: {error}") from error


_Named = TypeVar("_Named", Port, State)


def load_contract(path: str | os.PathLike[str]) -> Contract:
    """Read the contract of the artifact at `path`.

    Raises:
        ArtifactError: the file is missing, is not ONNX, or carries no valid contract.
    """
    from rnnx_runtime.session import open_session, read_contract

    return read_contract(open_session(path, optimize=False), path)


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

"""The contract: what an artifact says of itself, as JSON in the ONNX file's own metadata.

The file stays plain ONNX; any runtime may ignore the contract. rnnx reads it through onnxruntime,
treats it as untrusted input, and holds it against the graph's real inputs and outputs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

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
MAX_FRAMES = 1 << 22  # that a stream holds back, or adds at an end

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

    def here(self, frames: int) -> int:
        """How many frames an input has where the network's input has so many."""
        return frames * self.stride.denominator // self.stride.numerator

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
    def has_free_batch(self) -> bool:
        """Whether any number of sequences can be given together."""
        return any(isinstance(port.batch_size, str) for port in self.inputs)

    @property
    def has_only_frames(self) -> bool:
        """Whether every input has a time axis, so that a stream need not remember any as given."""
        return all(port.time_axis is not None for port in self.inputs)

    @property
    def readouts(self) -> list[str]:
        """The names of outputs without a time axis, each a value for all frames so far."""
        return [port.name for port in self.outputs if port.time_axis is None]

    @property
    def lags(self) -> bool:
        """Whether a stream holds frames back, so that the end of a sequence takes a run of its own.

        Without masks, any number of frames in a call and every frame out at once, nothing is held
        back.
        """
        one = (self.first_chunk, self.chunk_multiple) == (1, 1)
        held = bool(self.masks) or not one or self.chunk is not None
        held = held or any(p.count != p.length for p in self.outputs)
        return self.streaming and held

    def to_json(self) -> str:
        """This contract as one line of JSON."""
        from rnnx_runtime.contract_json import write

        return write(self)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """Read a contract written by `to_json`.

        Raises:
            ArtifactError: it is too large, not JSON, of another version, or a field does not fit.
        """
        from rnnx_runtime.contract_json import read

        return read(text)


def load_contract(path: str | os.PathLike[str]) -> Contract:
    """Read the contract of the artifact at `path`.

    Raises:
        ArtifactError: the file is missing, is not ONNX, or carries no valid contract.
    """
    from rnnx_runtime.session import open_session, read_contract

    return read_contract(open_session(path, optimize=False), path)

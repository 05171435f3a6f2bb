"""A stream's memory as portable bytes: a sealed record, its payload one array after another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime import sealed
from rnnx_runtime.chunks import fed_after
from rnnx_runtime.contract import DTYPES, Contract
from rnnx_runtime.errors import StreamError

MAGIC = b"RNNXSNAP"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a stream remembers.

    Attributes:
        fingerprint: of the artifact the stream runs.
        batch: sequences in the stream.
        position: frames fed.
        flushed: whether the sequence has ended.
        arrays: states and last readouts by name.
    """

    fingerprint: str
    batch: int
    position: int
    flushed: bool
    arrays: Mapping[str, npt.NDArray[Any]]


def pack(taken: Snapshot) -> bytes:
    """The snapshot as bytes."""
    header = {
        "fingerprint": taken.fingerprint,
        "batch": taken.batch,
        "position": taken.position,
        "flushed": taken.flushed,
        "arrays": [[n, str(a.dtype), list(a.shape)] for n, a in taken.arrays.items()],
    }
    values = [np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for a in taken.arrays.values()]
    return sealed.seal(MAGIC, VERSION, header, b"".join(a.tobytes() for a in values))


def unpack(data: bytes) -> Snapshot:
    """Read bytes that `pack` wrote.

    Raises:
        StreamError: they are not a snapshot, are damaged, or come from another version.
    """
    data = bytes(data)
    if not data.startswith(MAGIC):
        raise StreamError("these bytes are not an rnnx snapshot")
    if not sealed.is_whole(MAGIC, data):
        raise _damaged("its hash does not match; bytes are missing or changed")
    try:
        return _parse(data)
    except sealed.ERRORS as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error


def hold(taken: Snapshot, contract: Contract, batch: int) -> None:
    """Refuse a snapshot that a stream of `batch` sequences cannot go on from.

    Raises:
        StreamError: it belongs to another artifact or batch, or its arrays do not fit.
    """
    if taken.fingerprint != contract.fingerprint:
        raise StreamError("the snapshot was taken from another artifact")
    if taken.batch != batch:
        raise StreamError(
            f"the snapshot holds {taken.batch} sequences, this stream {batch}",
            hint=f"Open the stream with batch={taken.batch}.",
        )
    found = {name: (str(value.dtype), value.shape) for name, value in taken.arrays.items()}
    if found != _expected(taken, contract):
        raise StreamError("the snapshot's states do not fit this artifact")


def _expected(taken: Snapshot, contract: Contract) -> dict[str, tuple[str, tuple[int, ...]]]:
    """The dtypes and shapes of what a stream remembers after so many frames.

    A readout may be missing: it has no value before the first run.
    """
    fed = fed_after(contract, taken.position)
    held = [(f"held.{port.name}", port) for port in contract.inputs if taken.position]
    outputs = [(port.name, port) for port in contract.outputs]
    read = [(name, p) for name, p in outputs if p.time_axis is None and name in taken.arrays]
    shapes = {
        name: (port.dtype, port.shape(batch=taken.batch, frames=port.here(taken.position - fed)))
        for name, port in held + read
    }
    for state in contract.states:
        start = state.start(batch=taken.batch).shape
        shapes[state.name] = state.dtype, state.shape(batch=taken.batch) if fed else start
    return shapes


def _parse(data: bytes) -> Snapshot:
    header, payload = sealed.unseal(MAGIC, VERSION, data)
    return Snapshot(
        fingerprint=str(header["fingerprint"]),
        batch=int(header["batch"]),
        position=int(header["position"]),
        flushed=bool(header["flushed"]),
        arrays=_arrays(header["arrays"], payload),
    )


def _arrays(records: Any, data: memoryview) -> dict[str, npt.NDArray[Any]]:
    arrays = {}
    for name, dtype, shape in records:
        if dtype not in DTYPES or any(not isinstance(size, int) or size < 0 for size in shape):
            raise ValueError(f"array {name!r} is {dtype!r} of shape {shape!r}")
        little = np.dtype(dtype).newbyteorder("<")
        count = math.prod(shape) * little.itemsize
        if count > len(data):
            raise ValueError(f"array {name!r} is cut off")
        arrays[str(name)] = np.frombuffer(data[:count], little).reshape(shape).astype(dtype)
        data = data[count:]
    if len(data):
        raise ValueError(f"{len(data)} bytes are left over")
    return arrays


def _damaged(reason: str) -> StreamError:
    return StreamError(f"the snapshot is damaged: {reason}")

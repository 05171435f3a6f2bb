"""How a stream's frames fall into chunks: how many are run, which are of the sequence, and when.

The first run takes `first_chunk` frames or more, every other one a multiple of `chunk_multiple`;
frames that are too few for that are held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.contract import Contract, Port

Array = npt.NDArray[Any]


def fed_after(contract: Contract, position: int) -> int:
    """How many of so many frames go through the network; the rest is held."""
    more = position - contract.first_chunk
    return 0 if more < 0 else position - more % contract.chunk_multiple


def frames_to_the_end(contract: Contract, position: int) -> int:
    """How many frames must have gone in until all of a sequence of `position` have come out."""
    multiple = contract.chunk_multiple
    frames = max(fed_after(contract, position), contract.first_chunk)
    # From the first chunk on, a count grows evenly: by `1 / stride` for every frame.
    chunks = (
        (port.length(position) + port.skip - port.count(frames)) * port.stride / multiple
        for port in (*contract.outputs, *contract.masks)
        if port.time_axis is not None
    )
    return frames + multiple * max(0, 0, *map(math.ceil, chunks))


def mask(port: Port, fed: int, frames: int, length: int | None) -> Array:
    """Which of the frames a wire gets in a run are of the sequence.

    Args:
        port: the mask, `[frames, 1, ...]`.
        fed: input frames that went in before.
        frames: input frames of this run.
        length: input frames of the sequence; None where it goes on.
    """
    here = np.arange(_count(port, fed), _count(port, fed + frames)) - port.skip
    inside = here >= 0
    if length is not None:
        inside &= here < port.length(length)
    return inside.reshape(port.shape(batch=1, frames=len(inside)))


def of_the_sequence(
    contract: Contract, outputs: Mapping[str, Array], fed: int, length: int | None
) -> dict[str, Array]:
    """Copies of a run's outputs, without frames before the sequence or behind it.

    Args:
        contract: the artifact's.
        outputs: what came out, by name.
        fed: input frames that went in before.
        length: input frames of the sequence; None where it goes on.
    """
    kept = {}
    for port in contract.outputs:
        before = _count(port, fed) - port.skip
        stop = None if length is None else max(0, port.length(length) - before)
        kept[port.name] = frames_of(port, outputs[port.name], max(0, -before), stop).copy()
    return kept


def cut(
    ports: Sequence[Port], arrays: Mapping[str, Array], start: int, stop: int | None
) -> dict[str, Array]:
    """The frames from `start` to `stop` of every input that has frames."""
    return {
        port.name: frames_of(
            port, arrays[port.name], port.here(start), None if stop is None else port.here(stop)
        )
        for port in ports
    }


def in_a_row(ports: Sequence[Port], parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The frames of all parts, one after another; of arrays without frames, the last."""
    return {
        port.name: parts[-1][port.name]
        if port.time_axis is None
        else np.concatenate([part[port.name] for part in parts], port.time_axis)
        for port in ports
    }


def lengthened(ports: Sequence[Port], arrays: Mapping[str, Array], frames: int) -> dict[str, Array]:
    """The arrays with zeros behind them, so that they have so many frames."""
    return {port.name: _lengthened(port, arrays[port.name], frames) for port in ports}


def _count(port: Port, fed: int) -> int:
    """The frames that a wire has had after so many input frames."""
    return port.count(fed) if fed else 0


def frames_of(port: Port, array: Array, start: int, stop: int | None) -> Array:
    """Those frames of an array from `start` to before `stop`; all of it without a time axis."""
    if port.time_axis is None:
        return array
    return array[(slice(None),) * port.time_axis + (slice(start, stop),)]


def _lengthened(port: Port, array: Array, frames: int) -> Array:
    if port.time_axis is None:
        return array
    missing = [(0, 0)] * array.ndim
    missing[port.time_axis] = (0, port.here(frames) - array.shape[port.time_axis])
    return np.pad(array, missing)

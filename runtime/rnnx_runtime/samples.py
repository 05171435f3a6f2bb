"""Random inputs that fit a contract, for proofs, checks and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.contract import Contract, Port


def random_inputs(
    contract: Contract, rng: np.random.Generator, *, batch: int, frames: int
) -> dict[str, npt.NDArray[Any]]:
    """One array for each input: normal floats, ids below `num_embeddings`, falling lengths."""
    arrays = {}
    for port in contract.inputs:
        shape = port.shape(batch=batch, frames=port.here(frames))
        random = _lengths(rng, shape, frames) if port.counts_frames else _random(port, rng, shape)
        arrays[port.name] = random.astype(port.dtype)
    return arrays


def changed_from(port: Port, value: npt.NDArray[Any], at: int, content: float) -> npt.NDArray[Any]:
    """A copy of an input with other content from the input frame `at` on.

    Args:
        port: the input, with a time axis.
        value: what it was.
        at: the first frame that changes.
        content: what floats become; ids become others.
    """
    value = value.copy()
    frames = np.moveaxis(value, port.time_axis or 0, 0)[port.here(at) :]
    frames[:] = content if value.dtype.kind == "f" else (frames + 1) % (port.num_embeddings or 2)
    return value


def _lengths(
    rng: np.random.Generator, shape: tuple[int, ...], frames: int
) -> npt.NDArray[np.int64]:
    """Lengths of 1 to `frames`, the longest first, as sorted batches have them."""
    lengths = np.sort(rng.integers(1, frames + 1, shape))[::-1]
    lengths[:1] = frames
    return lengths


def _random(port: Port, rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    dtype = np.dtype(port.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    # Where nothing tells how many ids there are, 0 and 1 are the safest guess.
    return rng.integers(0, port.num_embeddings or 2, shape).astype(dtype)

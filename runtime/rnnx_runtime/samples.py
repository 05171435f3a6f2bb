"""Random inputs that fit a contract, for proofs, checks and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.contract import Contract, Port


def random_inputs(
    contract: Contract, rng: np.random.Generator, *, batch: int, frames: int
) -> dict[str, npt.NDArray[Any]]:
    """One array for each input: normal floats, ids below `num_embeddings`, random booleans."""
    return {
        port.name: _random(port, rng, port.shape(batch=batch, frames=frames))
        for port in contract.inputs
    }


def _random(port: Port, rng: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    dtype = np.dtype(port.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    # Where nothing tells how many ids there are, 0 and 1 are the safest guess.
    return rng.integers(0, port.num_embeddings or 2, shape).astype(dtype)

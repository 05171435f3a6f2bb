"""What tells whether two sets of arrays are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt


def sha256_of_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """The hash of arrays: of their names, dtypes, shapes and bytes, whatever their order."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def sha256_of_runs(runs: Iterable[Mapping[str, npt.NDArray[Any]]]) -> str:
    """The hash of runs one after another, each of arrays by name."""
    return hashlib.sha256("".join(map(sha256_of_arrays, runs)).encode()).hexdigest()

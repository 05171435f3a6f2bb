"""What streams give, piece by piece, put together and held against whole runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import rnnx

Arrays = dict[str, npt.NDArray[Any]]


def named(contract: rnnx.Contract, result: Any) -> Arrays:
    return result if isinstance(result, dict) else {contract.outputs[0].name: result}


def joined(contract: rnnx.Contract, pieces: Sequence[Arrays]) -> Arrays:
    return {
        port.name: pieces[-1][port.name]
        if port.time_axis is None
        else np.concatenate([piece[port.name] for piece in pieces], port.time_axis)
        for port in contract.outputs
    }


def hold_all(found: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> float:
    """Every output equal in shape and dtype, and near; how far apart, relative to its scale."""
    worst = 0.0
    for name, wanted in expected.items():
        assert (found[name].shape, found[name].dtype) == (wanted.shape, wanted.dtype), name
        scale = max(1.0, float(np.abs(wanted).max(initial=0)))
        far = float(np.abs(found[name] - wanted).max(initial=0)) / scale
        assert far < tolerance, (name, far)
        worst = max(worst, far)
    return worst

"""Proves what a level promises: how a stream is cut, or what stands beside it, changes no bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rnnx.quantization.calibration import Array, Feeds, repeated
from rnnx.quantization.quality import Outputs, Runner
from rnnx_runtime.chunks import cut, in_a_row
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import QuantizationError

# The first frames of the first runs: a dependence shows in any of them, and frame by frame is slow.
_RUNS, _FRAMES = 4, 128
_CUTS = (1, 3, 7)
_LOUD = 8.0

# Relative to an output: float32 adds up in another order for another number of rows.
_ROUNDING = 16 * float(np.finfo(np.float32).eps)


class _Difference(NamedTuple):
    """An output or state that differs, and by how much of its largest value."""

    name: str
    relative: float


_Differing = Callable[[Runner, Contract, Feeds, int | None], _Difference | None]


def prove_invariance(
    original: Runner,
    quantized: Runner,
    contract: Contract,
    runs: list[Feeds],
    promised: str,
    chunk: int | None = None,
) -> tuple[str, list[str]]:
    """What holds of the invariance promised, and a note where float32's rounding does not hold it.

    Streams are cut otherwise than into `chunk`, and sequences run beside a loud one.

    Raises:
        QuantizationError: what is promised, and holds for the original, does not, by more than
            float32 rounds.
    """
    firsts, held = runs[:_RUNS], "none"
    if contract.streaming:
        frames = _FRAMES * contract.first_chunk
        firsts = [cut(contract.inputs, feeds, 0, frames) for feeds in firsts]
    for invariance, cause, differing in _CHECKS[: _ORDER.index(promised)]:
        for feeds in firsts:
            found = differing(quantized, contract, feeds, chunk)
            if found is None:
                continue
            is_rounding = found.relative <= _ROUNDING
            if not is_rounding and differing(original, contract, feeds, chunk) is None:
                raise _broken(promised, cause, found.name)
            return held, [f"The rounding of {found.name!r} depends on {cause}, as in float32."]
        held = invariance
    return held, []


def _broken(promised: str, cause: str, name: str) -> QuantizationError:
    return QuantizationError(
        f"the level promises invariance {promised!r}, but {cause} changes {name!r}",
        hint="That is a fault of the level, so nothing was written: choose another one.",
    )


def _by_cut(
    runner: Runner, contract: Contract, feeds: Feeds, chunk: int | None
) -> _Difference | None:
    """The output or state that changes most where the stream is cut otherwise."""
    if not contract.streaming:
        return None
    expected = _whole(runner, contract, feeds, chunk)
    cuts = (count * contract.chunk_multiple for count in _CUTS)
    found = (_unequal(expected, _whole(runner, contract, feeds, each)) for each in cuts)
    return _largest([each for each in found if each])


def _by_neighbour(
    runner: Runner, contract: Contract, feeds: Feeds, chunk: int | None
) -> _Difference | None:
    """The output or state of a sequence that changes most beside a loud one."""
    if not contract.has_free_batch:
        return None
    alone = repeated(contract, feeds, "batch", range(1))
    both = {port.name: _with_neighbour(port, alone[port.name]) for port in contract.inputs}
    beside = _first_of_batch(contract, _whole(runner, contract, both, chunk))
    return _unequal(_first_of_batch(contract, _whole(runner, contract, alone, chunk)), beside)


_ORDER = ("none", "chunks", "all")
_CHECKS: tuple[tuple[str, str, _Differing], ...] = (
    ("chunks", "how a stream is cut", _by_cut),
    ("all", "another sequence of the batch", _by_neighbour),
)


def _whole(runner: Runner, contract: Contract, feeds: Feeds, chunk: int | None) -> Outputs:
    """All frames of the outputs, and the last states."""
    parts = list(runner.outputs(feeds, chunk))
    latest = {name: array for part in parts for name, array in part.items()}
    return latest | in_a_row(contract.outputs, parts)


def _unequal(expected: Outputs, found: Outputs) -> _Difference | None:
    return _largest(
        [
            _Difference(name, _relative(array, found[name]))
            for name, array in expected.items()
            if not np.array_equal(array, found[name], True)
        ]
    )


def _relative(expected: Array, found: Array) -> float:
    """The largest difference in times of the largest value; infinite between ids and NaN."""
    if expected.dtype.kind != "f" or expected.shape != found.shape:
        return np.inf
    if not np.isfinite([expected, found]).all():
        return np.inf
    return float(np.abs(expected - found).max() / (np.abs(expected).max() or 1.0))


def _largest(differences: list[_Difference]) -> _Difference | None:
    return max(differences, key=lambda each: each.relative, default=None)


def _with_neighbour(port: Port, array: Array) -> Array:
    """The sequence and behind it another: louder, or of the same ids in reverse."""
    if port.batch_axis is None:
        return array
    is_float = array.dtype.kind == "f"
    other = array * array.dtype.type(_LOUD) if is_float else np.flip(array, port.time_axis or 0)
    return np.concatenate([array, other], port.batch_axis)


def _first_of_batch(contract: Contract, outputs: Outputs) -> Outputs:
    """What is of the first sequence."""
    axes = {port.name: port.batch_axis for port in contract.outputs}
    axes |= {state.name: 0 for state in contract.states}
    return {name: outputs[name].take([0], axis) for name, axis in axes.items() if axis is not None}

"""Proves what a level promises: how a stream is cut, or what stands beside it, changes no bit."""

from __future__ import annotations

from collections.abc import Callable

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

_Differing = Callable[[Runner, Contract, Feeds, int | None], str | None]


def prove_invariance(
    original: Runner,
    quantized: Runner,
    contract: Contract,
    runs: list[Feeds],
    promised: str,
    chunk: int | None = None,
) -> tuple[str, list[str]]:
    """What holds of the invariance promised, and a note where float32 itself does not hold it.

    Streams are cut otherwise than into `chunk`, and sequences run beside a loud one.

    Raises:
        QuantizationError: what is promised, and holds for the original, does not.
    """
    firsts, held = runs[:_RUNS], "none"
    if contract.streaming:
        frames = _FRAMES * contract.first_chunk
        firsts = [cut(contract.inputs, feeds, 0, frames) for feeds in firsts]
    for invariance, cause, differing in _CHECKS[: _ORDER.index(promised)]:
        for feeds in firsts:
            name = differing(quantized, contract, feeds, chunk)
            if name is None:
                continue
            if differing(original, contract, feeds, chunk) is None:
                raise _broken(promised, cause, name)
            return held, [f"The rounding of {name!r} depends on {cause}, in float32 as well."]
        held = invariance
    return held, []


def _broken(promised: str, cause: str, name: str) -> QuantizationError:
    return QuantizationError(
        f"the level promises invariance {promised!r}, but {cause} changes {name!r}",
        hint="That is a fault of the level, so nothing was written: choose another one.",
    )


def _by_cut(runner: Runner, contract: Contract, feeds: Feeds, chunk: int | None) -> str | None:
    """The first output or state that changes where the stream is cut otherwise."""
    if not contract.streaming:
        return None
    expected = _whole(runner, contract, feeds, chunk)
    cuts = (count * contract.chunk_multiple for count in _CUTS)
    names = (_unequal(expected, _whole(runner, contract, feeds, each)) for each in cuts)
    return next(filter(None, names), None)


def _by_neighbour(
    runner: Runner, contract: Contract, feeds: Feeds, chunk: int | None
) -> str | None:
    """The first output or state of a sequence that changes beside a loud one."""
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


def _unequal(expected: Outputs, found: Outputs) -> str | None:
    same = {name: np.array_equal(array, found[name], True) for name, array in expected.items()}
    return next((name for name, is_same in same.items() if not is_same), None)


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

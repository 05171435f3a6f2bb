"""Proves a streaming graph before it is written: in chunks, against the offline graph."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from rnnx_exporters.clock import Clock
from rnnx_exporters.compare import ATOL, compare
from rnnx_exporters.proof import session_of
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import NotStreamableError
from rnnx_runtime.model import Model
from rnnx_runtime.samples import changed_from, random_inputs
from rnnx_runtime.stream import feed_whole

Array = npt.NDArray[Any]

_CHUNKINGS = 3
_LOUD = 30.0
_LEAST_SNR_DB = 30.0  # between roundings of 8 bits


def prove_streaming(
    offline: ir.Model, path: Path, contract: Contract, clocks: Collection[Clock] = ()
) -> None:
    """Run the streaming artifact at `path`, in chunks and in steps, against the offline graph.

    It runs at lengths at which all wires of these clocks have frames, as many as those they meet.

    DynamicQuantizeLSTM rounds by the range of a call's input, so chunks of it are rounded
    otherwise than the whole; there the difference must be 30 dB below the output.

    Raises:
        NotStreamableError: they differ, or a frame reaches an output before it may.
    """
    rng = np.random.default_rng(0)
    model, session = Model(path), session_of(offline)
    proven, failure = 0, "it is defined at none of them"
    for batch, frames in _sizes(contract, clocks):
        feeds = random_inputs(contract, rng, batch=batch, frames=frames)
        try:
            expected = _run_offline(session, feeds, contract)
        except Exception as error:  # onnxruntime raises many unrelated classes
            failure = str(error)
            continue
        proven = max(proven, frames)
        for lengths in (*_chunkings(frames, rng), repeat(contract.chunk_multiple)):
            found = feed_whole(model.stream(batch=batch), feeds, lengths)
            _hold_stream(contract, found, expected)
    if not proven:
        raise NotStreamableError(
            f"the offline graph runs at none of the lengths that were tried: {failure}",
            hint="Run it in onnxruntime first; that runs recurrent operators in float32.",
        )
    _hold_causality(session, contract, proven, rng)


def _defined(lengths: Iterable[int], clocks: Collection[Clock]) -> list[int]:
    """The lengths at which every wire has frames, and those that meet are equally long.

    At others the offline graph fails, or stretches one wire over another by broadcasting.
    """
    counts = [clock.length for clock in clocks]
    return [
        length
        for length in lengths
        if all(len(set(each)) == 1 <= each[0] for each in (n.each(length) for n in counts))
    ]


def _sizes(contract: Contract, clocks: Collection[Clock]) -> Iterator[tuple[int, int]]:
    """Batches and lengths: short ones, whole numbers of chunks, and every odd end."""
    free = contract.has_free_batch
    first, step = contract.first_chunk, contract.chunk_multiple
    for frames in _defined({1, first}, clocks):
        yield 1, frames
    ends = _defined(range(first + 12 * step, first + 13 * step), clocks)
    for place in sorted({0, 1, len(ends) // 2, len(ends) - 1} & set(range(len(ends)))):
        yield 1, ends[place]
    for frames in _defined(range(2 * first + 27 * step, 2 * first + 28 * step), clocks)[:1]:
        yield (3 if free else 1), frames


def _run_offline(
    session: ort.InferenceSession, feeds: Mapping[str, Array], contract: Contract
) -> dict[str, Array]:
    """The offline graph's outputs by name, its own initial states at zero."""
    batch = next(
        (feeds[p.name].shape[p.batch_axis] for p in contract.inputs if p.batch_axis is not None), 1
    )
    zeros = {
        node.name: np.zeros([d if isinstance(d, int) else batch for d in node.shape], np.float32)
        for node in session.get_inputs()
        if node.name not in feeds
    }
    names = [port.name for port in contract.outputs]
    return dict(zip(names, session.run(names, {**feeds, **zeros}), strict=True))


def _chunkings(frames: int, rng: np.random.Generator) -> Iterator[Iterator[int]]:
    """Random lengths of chunks, anew each time."""
    for _ in range(_CHUNKINGS):
        yield (int(rng.integers(1, max(8, frames // 3))) for _ in count())


def _hold_stream(
    contract: Contract, actual: Mapping[str, Array], expected: Mapping[str, Array]
) -> None:
    for port in contract.outputs:
        got, wanted = actual[port.name], expected[port.name]
        found = compare(got, wanted)
        if found.passed or (_by_ranges(contract) and _snr_db(got, wanted) >= _LEAST_SNR_DB):
            continue
        raise _untimely(
            f"fed in chunks, output {port.name!r} differs from the whole sequence:"
            f" {found.reason or f'by {found.max_abs:.2e}'} at index {list(found.index or ())}"
        )


def _by_ranges(contract: Contract) -> bool:
    """Whether an operator scales its input by the range of a whole call, so that chunks differ."""
    return "DynamicQuantizeLSTM" in contract.operators


def _snr_db(actual: Array, expected: Array) -> float:
    """The power of what is expected over that of the difference, in dB."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return -np.inf
    signal, noise = np.square(expected).sum(), np.square(actual - expected).sum()
    return float(10 * np.log10(signal / noise)) if noise else np.inf


def _hold_causality(
    session: ort.InferenceSession, contract: Contract, frames: int, rng: np.random.Generator
) -> None:
    """A changed frame must change no output frame before it may, and must change something.

    The change is a loud value, not NaN: onnxruntime's GRU and LSTM clamp NaN away in their gates.
    All frames behind it are changed, too: a stride may leave it out, and a value at the end of the
    sequence may have forgotten it.
    """
    timed = [port for port in contract.inputs if port.time_axis is not None]
    late = min(contract.first_chunk + 4 * contract.chunk_multiple, frames - 1)
    # By then a state may be saturated, which follows the first frames alone.
    reached = [
        _probe(session, contract, port, frames, at, rng) for at in (late, 0) for port in timed
    ]
    if not any(reached):
        raise NotStreamableError(
            "a changed frame changes no output, so nothing is proven by what comes out",
            hint="The network is dead: look at its weights, and at what they are multiplied by.",
        )


def _probe(
    session: ort.InferenceSession,
    contract: Contract,
    port: Port,
    frames: int,
    at: int,
    rng: np.random.Generator,
) -> bool:
    """Whether an input that is changed from the frame `at` on changes any output."""
    feeds = random_inputs(contract, rng, batch=1, frames=frames)
    loud = {**feeds, port.name: changed_from(port, feeds[port.name], at, _LOUD)}
    quiet, other = _run_offline(session, feeds, contract), _run_offline(session, loud, contract)
    reached = False
    for out in contract.outputs:
        changed = _changed(out.time_axis, quiet[out.name], other[out.name])
        # Any bit tells: where states are saturated, a loud frame changes next to nothing.
        reached = reached or not np.array_equal(quiet[out.name], other[out.name], equal_nan=True)
        early = [frame for frame in changed if out.sees(frame)[1] < at]
        # A loud frame widens the range that the others are rounded by.
        if out.time_axis is not None and early and not _by_ranges(contract):
            raise _untimely(f"frame {at} of {port.name!r} reaches frame {early[0]} of {out.name!r}")
    return reached


def _changed(time_axis: int | None, quiet: Array, loud: Array) -> list[int]:
    """The frames of an output that differ; 0 stands for a value without frames."""
    different = np.abs(loud.astype(np.float64) - quiet.astype(np.float64)) > ATOL
    if time_axis is None:
        return [0] if different.any() else []
    others = tuple(axis for axis in range(different.ndim) if axis != time_axis)
    return [int(frame) for frame in np.flatnonzero(different.any(others))]


def _untimely(message: str) -> NotStreamableError:
    return NotStreamableError(message, hint="This is a fault in rnnx; please report the model.")

"""Proves a streaming graph before it is written: in random chunks, against the offline graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from rnnx_exporters.compare import ATOL, compare
from rnnx_exporters.proof import session_of
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import NotStreamableError
from rnnx_runtime.model import Model
from rnnx_runtime.samples import random_inputs
from rnnx_runtime.stream import Stream

Array = npt.NDArray[Any]

_CHUNKINGS = 3


def prove_streaming(offline: ir.Model, path: Path, contract: Contract) -> None:
    """Run the streaming artifact at `path`, in random chunks, against the offline graph.

    Raises:
        NotStreamableError: they differ, a frame reaches an output before it may, or none at all.
    """
    rng = np.random.default_rng(0)
    model, session = Model(path), session_of(offline)
    proven = 0
    for batch, frames in _sizes(contract):
        feeds = random_inputs(contract, rng, batch=batch, frames=frames)
        expected = _run_offline(session, feeds, contract)
        if expected is None:
            continue
        proven += 1
        for _ in range(_CHUNKINGS):
            chunks = _in_chunks(model.stream(batch=batch), feeds, rng)
            _hold_stream(contract, chunks, expected)
    if not proven:
        raise _untimely("the offline graph runs at none of the lengths that were tried")
    _hold_causality(session, contract, rng)


def _sizes(contract: Contract) -> Iterator[tuple[int, int]]:
    """Batches and lengths: short ones, whole numbers of chunks, and every odd end."""
    free = any(port.batch_axis is not None for port in contract.inputs)
    first, step = contract.first_chunk, contract.chunk_multiple
    whole = -(-first // step) * step  # some networks run at multiples of their strides alone
    ends = sorted({0, 1, step // 2, step - 1})
    yield 1, 1
    yield 1, first
    yield from ((1, whole + 12 * step + end) for end in ends)
    yield (3 if free else 1), 2 * whole + 27 * step


def _run_offline(
    session: ort.InferenceSession, feeds: Mapping[str, Array], contract: Contract
) -> dict[str, Array] | None:
    """The offline graph's outputs by name, its own initial states at zero; None if it cannot run.

    A network may need more frames than these, or a number that a stride divides.
    """
    batch = next(
        (feeds[p.name].shape[p.batch_axis] for p in contract.inputs if p.batch_axis is not None), 1
    )
    zeros = {
        node.name: np.zeros([d if isinstance(d, int) else batch for d in node.shape], np.float32)
        for node in session.get_inputs()
        if node.name not in feeds
    }
    names = [port.name for port in contract.outputs]
    try:
        results = session.run(names, {**feeds, **zeros})
    except Exception:  # onnxruntime raises many unrelated classes
        return None
    return dict(zip(names, results, strict=True))


def _in_chunks(
    stream: Stream, feeds: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """The stream's outputs over the whole of `feeds`, fed in random chunks, tail included."""
    contract = stream.model.contract
    timed = {p.name: p.time_axis for p in contract.inputs if p.time_axis is not None}
    frames = min(feeds[name].shape[axis] for name, axis in timed.items())
    longest = max(8, frames // 3)
    pieces: list[dict[str, Array]] = []
    start = 0
    while start < frames:
        stop = min(frames, start + int(rng.integers(1, longest)))
        chunk = {
            name: x.take(range(start, stop), timed[name]) if name in timed else x
            for name, x in feeds.items()
        }
        pieces.append(_named(contract, stream.feed(chunk)))
        start = stop
    pieces.append(_named(contract, stream.flush()))
    return {port.name: _joined(port, pieces) for port in contract.outputs}


def _named(contract: Contract, result: Array | dict[str, Array]) -> dict[str, Array]:
    return result if isinstance(result, dict) else {contract.outputs[0].name: result}


def _joined(port: Port, pieces: Sequence[Mapping[str, Array]]) -> Array:
    values = [piece[port.name] for piece in pieces]
    return values[-1] if port.time_axis is None else np.concatenate(values, port.time_axis)


def _hold_stream(
    contract: Contract, actual: Mapping[str, Array], expected: Mapping[str, Array]
) -> None:
    for port in contract.outputs:
        found = compare(actual[port.name], expected[port.name])
        if not found.passed:
            raise _untimely(
                f"fed in chunks, output {port.name!r} differs from the whole sequence:"
                f" {found.reason or f'by {found.max_abs:.2e}'} at index {list(found.index or ())}"
            )


def _hold_causality(
    session: ort.InferenceSession, contract: Contract, rng: np.random.Generator
) -> None:
    """A changed frame must change no output frame before it may, and some output frame.

    The change is a loud value, not NaN: onnxruntime's GRU and LSTM clamp NaN away in their gates.
    As many frames are changed as a chunk is a multiple of: a stride may leave single ones out.
    """
    for port in contract.inputs:
        if port.time_axis is not None:
            _probe(session, contract, port, rng)


def _probe(
    session: ort.InferenceSession, contract: Contract, port: Port, rng: np.random.Generator
) -> None:
    first, step = contract.first_chunk, contract.chunk_multiple
    at = -(-first // step) * step + 4 * step
    feeds = random_inputs(contract, rng, batch=1, frames=2 * at + 4 * step)
    loud = {**feeds, port.name: _loud(port, feeds[port.name], slice(at, at + step))}
    quiet, other = _run_offline(session, feeds, contract), _run_offline(session, loud, contract)
    if quiet is None or other is None:
        raise _untimely("the offline graph does not run at the length of the causality probe")
    reached = False
    for out in contract.outputs:
        frames = _changed(out, quiet[out.name], other[out.name])
        reached = reached or bool(frames)
        early = [frame for frame in frames if frame * out.stride + out.lookahead < at]
        if out.time_axis is not None and early:
            raise _untimely(f"frame {at} of {port.name!r} reaches frame {early[0]} of {out.name!r}")
    if not reached:
        raise _untimely(f"frame {at} of {port.name!r} reaches no output")


def _loud(port: Port, value: Array, where: slice) -> Array:
    """`value` with another content at some frames."""
    loud = value.copy()
    frames = np.moveaxis(loud, port.time_axis or 0, 0)
    if value.dtype.kind == "f":
        frames[where] = 30
    else:
        frames[where] = (frames[where] + 1) % (port.num_embeddings or 2)
    return loud


def _changed(port: Port, quiet: Array, loud: Array) -> list[int]:
    """The frames of an output that differ; 0 stands for a value without frames."""
    different = np.abs(loud.astype(np.float64) - quiet.astype(np.float64)) > ATOL
    if port.time_axis is None:
        return [0] if different.any() else []
    others = tuple(axis for axis in range(different.ndim) if axis != port.time_axis)
    return [int(frame) for frame in np.flatnonzero(different.any(others))]


def _untimely(message: str) -> NotStreamableError:
    return NotStreamableError(message, hint="This is a fault in rnnx; please report the model.")

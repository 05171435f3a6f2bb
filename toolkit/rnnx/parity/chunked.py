"""The chunked probe: through the real runner, in chunks, against the whole sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.parity.reference import Reference
from rnnx.parity.report import Finding
from rnnx.parity.sequence import judge
from rnnx_runtime import Contract, Model, Port, Stream
from rnnx_runtime.chunks import cut
from rnnx_runtime.errors import InputError
from rnnx_runtime.model import size_along
from rnnx_runtime.samples import random_inputs

Array = npt.NDArray[Any]

# One frame, a prime, and more than half: each leaves a ragged tail of 31 frames.
CHUNKS = (1, 7, 17)
FRAMES = 31


def probe(
    artifact: Model, reference: Reference, rng: np.random.Generator, rtol: float, atol: float
) -> Iterator[Finding]:
    """Stream one batch in chunks of each length; outputs and final states must be torch's.

    The model starts from its own states, the stream from those that the contract holds.
    """
    contract = artifact.contract
    batch = 2 if any(isinstance(port.batch_size, str) for port in contract.inputs) else 1
    frames = FRAMES * contract.first_chunk
    feeds = random_inputs(contract, rng, batch=batch, frames=frames)
    expected, expected_after = reference.run(feeds)
    both = expected | expected_after
    for chunk in CHUNKS:
        run = {"batch": batch, "frames": frames, "chunk": chunk}
        stream = artifact.stream(batch=batch)
        try:
            outputs = run_in_chunks(stream, feeds, chunk)
        except InputError as error:  # its outputs are not of its contract's shapes, say
            yield _failed(contract, run, rtol, atol, str(error))
            continue
        # Where the end takes a run of its own, it goes over frames behind the sequence.
        states = {} if contract.lags else reference.in_torch_terms(stream.states())
        actual = outputs | states
        pairs = {name: (value, both[name]) for name, value in actual.items()}
        yield from judge("chunked", contract, pairs, run, rtol, atol)


def _failed(
    contract: Contract, run: dict[str, int], rtol: float, atol: float, reason: str
) -> Finding:
    name = contract.outputs[0].name
    return Finding("chunked", name, run, False, math.inf, math.inf, rtol, atol, reason=reason)


def run_in_chunks(stream: Stream, feeds: Mapping[str, Array], chunk: int) -> dict[str, Array]:
    """The stream's outputs over all of `feeds`, fed `chunk` frames at a time, tail included."""
    contract = stream.model.contract
    frames = size_along(contract, feeds, "time") or 0
    pieces = [
        stream.feed(cut(contract.inputs, feeds, start, start + chunk))
        for start in range(0, frames, chunk)
    ]
    pieces.append(stream.flush())
    named = [_named(contract, piece) for piece in pieces]
    return {
        port.name: _join(port, [piece[port.name] for piece in named]) for port in contract.outputs
    }


def _named(contract: Contract, result: Array | dict[str, Array]) -> dict[str, Array]:
    return result if isinstance(result, dict) else {contract.outputs[0].name: result}


def _join(port: Port, values: list[Array]) -> Array:
    return values[-1] if port.time_axis is None else np.concatenate(values, port.time_axis)

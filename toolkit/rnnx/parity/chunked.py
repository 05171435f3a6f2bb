"""The chunked probe: through the real runner, in chunks, against the whole sequence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.parity.reference import Reference
from rnnx.parity.report import Finding
from rnnx.parity.sequence import judge
from rnnx_runtime import Contract, Model
from rnnx_runtime.errors import InputError
from rnnx_runtime.samples import random_inputs
from rnnx_runtime.stream import feed_whole

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
    batch = 2 if contract.has_free_batch else 1
    frames = FRAMES * contract.first_chunk
    feeds = random_inputs(contract, rng, batch=batch, frames=frames)
    expected, expected_after = reference.run(feeds)
    both = expected | expected_after
    for chunk in CHUNKS:
        run = {"batch": batch, "frames": frames, "chunk": chunk}
        stream = artifact.stream(batch=batch)
        try:
            outputs = feed_whole(stream, feeds, itertools.repeat(chunk))
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

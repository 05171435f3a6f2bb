"""The sequence probe: whole sequences from random states, every output and every state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.parity.reference import Reference
from rnnx.parity.report import Finding
from rnnx_exporters.compare import compare
from rnnx_runtime import Contract, Model
from rnnx_runtime.errors import ArtifactError
from rnnx_runtime.model import named
from rnnx_runtime.samples import random_inputs

Array = npt.NDArray[Any]


def probe(
    artifact: Model,
    reference: Reference,
    rng: np.random.Generator,
    sizes: Sequence[tuple[int, int]],
    rtol: float,
    atol: float,
) -> Iterator[Finding]:
    """Run artifact and model once for each (batch, frames) of `sizes`.

    Where the network needs many frames for one, so many times more are given. An artifact that
    remembers more than torch's layers do begins as it does on the device.
    """
    contract = artifact.contract
    for batch, few in _distinct(contract, sizes):
        frames = few * contract.first_chunk
        feeds = random_inputs(contract, rng, batch=batch, frames=frames)
        run = {"batch": batch, "frames": frames}
        if not reference.has_all_states:
            expected, _ = reference.run(feeds)
            pairs = _pairs(named(contract, artifact.run(feeds)), expected)
            yield from judge("sequence", contract, pairs, run, rtol, atol)
            continue
        states = random_states(contract, rng, batch)
        expected, expected_after = reference.run(feeds, states)
        actual, actual_after = _run(artifact, feeds, states)
        actual_after = reference.in_torch_terms(actual_after)
        pairs = {**_pairs(actual, expected), **_pairs(actual_after, expected_after)}
        yield from judge("sequence", contract, pairs, run, rtol, atol)


def random_states(contract: Contract, rng: np.random.Generator, batch: int) -> dict[str, Array]:
    """Normal states by name; every state differs from every other and from zero."""
    return {
        state.name: rng.standard_normal(state.shape(batch=batch)).astype(state.dtype)
        for state in contract.states
    }


def judge(
    probe_name: str,
    contract: Contract,
    pairs: Mapping[str, tuple[Array, Array]],
    run: dict[str, int],
    rtol: float,
    atol: float,
) -> Iterator[Finding]:
    """One finding for each (actual, expected) pair."""
    axes = {port.name: port.time_axis for port in contract.outputs}
    for name, (actual, expected) in pairs.items():
        found = compare(actual, expected, rtol=rtol, atol=atol)
        axis = axes.get(name)
        step = None if found.index is None or axis is None else found.index[axis]
        yield Finding(
            probe=probe_name,
            output=name,
            run=run,
            passed=found.passed,
            max_abs=found.max_abs,
            required_atol=found.required_atol,
            rtol=rtol,
            atol=atol,
            index=found.index,
            time_step=step,
            reason=found.reason,
        )


def _distinct(contract: Contract, sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The sizes, with batch 1 where the artifact has no batch axis."""
    free = contract.has_free_batch
    return list(dict.fromkeys((batch if free else 1, frames) for batch, frames in sizes))


def _run(
    artifact: Model, feeds: Mapping[str, Array], states: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    contract = artifact.contract
    starts = {state.input_name: states[state.name] for state in contract.states}
    names = [port.name for port in contract.outputs]
    afters = [state.output_name for state in contract.states]
    try:
        results = artifact.session.run([*names, *afters], {**feeds, **starts})
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ArtifactError(
            f"{artifact.path!r} does not run on what its contract describes: {error}",
            hint="The graph or its metadata was edited by hand; export it again.",
        ) from error
    keys = [*names, *(state.name for state in contract.states)]
    values = dict(zip(keys, results, strict=True))
    return {n: values[n] for n in names}, {s.name: values[s.name] for s in contract.states}


def _pairs(
    actual: Mapping[str, Array], expected: Mapping[str, Array]
) -> dict[str, tuple[Array, Array]]:
    return {name: (value, expected[name]) for name, value in actual.items()}

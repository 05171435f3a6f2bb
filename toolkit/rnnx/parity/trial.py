"""A trial: the artifact, what it is held against, and how near: what every probe needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rnnx.hashing import sha256_of_arrays
from rnnx.parity.evidence import Evidence, Span, gather
from rnnx.parity.gate import Gate
from rnnx.parity.judge import Pair, allowed, floors_of, judge
from rnnx.parity.metric import Metric
from rnnx.parity.recordings import Recording
from rnnx.parity.report import Finding
from rnnx_runtime import Contract, Model, Stream
from rnnx_runtime.errors import ArtifactError, InputError
from rnnx_runtime.model import named, unwrap
from rnnx_runtime.samples import random_inputs
from rnnx_runtime.stream import feed_whole

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


class Reference(Protocol):
    """What an artifact is held against."""

    def run(self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None) -> Any:
        """Outputs and last states by the artifact's names; see `TorchReference.run`."""

    def comparable(self, states: Mapping[str, Array]) -> Arrays:
        """The artifact's states that the reference has, as the reference has them."""

    @property
    def has_all_states(self) -> bool:
        """Whether both can begin with any states."""

    @property
    def weights(self) -> int:
        """How many numbers it multiplies with."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What the reference gives.

    Attributes:
        values: outputs and last states by name, as the reference computes them.
        exact: the same in float64, where there is such a reference; else empty.
        inputs_sha256: of what it was given.
    """

    values: Arrays
    exact: Arrays
    inputs_sha256: str | None = None

    def row(self, contract: Contract, index: int) -> Expected:
        """Of one sequence alone."""
        values, exact = row(contract, self.values, index), row(contract, self.exact, index)
        return Expected(values, exact, self.inputs_sha256)


NOTHING = Expected({}, {})


class Trial:
    """What a probe needs.

    Args:
        artifact: the artifact, opened.
        reference: what it is held against.
        exact: the same in float64, or None.
        gate: what is near enough.
        seed: of everything random.
        chunk: frames of a call as deployed.
        batch: sequences of a call as deployed.
        recordings: the user's own sequences.
        metric: the user's own.

    Attributes:
        notes: what a reader of the report should know.
        evidence: the worst comparison of each output so far, by name.
    """

    def __init__(
        self,
        artifact: Model,
        reference: Reference,
        exact: Reference | None,
        gate: Gate,
        *,
        seed: int = 0,
        chunk: int | None = None,
        batch: int = 1,
        recordings: Sequence[Recording] = (),
        metric: Metric | None = None,
    ) -> None:
        self.artifact, self.reference, self.gate, self.seed = artifact, reference, gate, seed
        self.chunk = chunk or artifact.contract.chunk or artifact.contract.chunk_multiple
        self.batch = batch
        self.recordings, self.metric = recordings, metric
        self.notes: list[str] = []
        self.evidence: dict[str, Evidence] = {}
        self._exact = exact

    @property
    def contract(self) -> Contract:
        """The artifact's."""
        return self.artifact.contract

    def rng(self, probe: str) -> np.random.Generator:
        """Random numbers of a probe's own: what others draw does not change them."""
        return np.random.default_rng([self.seed, *probe.encode()])

    def inputs(self, rng: np.random.Generator, *, batch: int, frames: int) -> Arrays:
        """Random inputs by name."""
        return random_inputs(self.contract, rng, batch=batch, frames=frames)

    def states(self, rng: np.random.Generator, *, batch: int) -> Arrays | None:
        """Normal states by name; every state differs from every other and from zero.

        None where artifact and reference cannot both begin with any: they start as they do alone.
        """
        if not self.reference.has_all_states:
            return None
        return {
            state.name: rng.standard_normal(state.shape(batch=batch)).astype(state.dtype)
            for state in self.contract.states
        }

    def batches(self, *sizes: int) -> list[int]:
        """These batch sizes, or 1 alone where the artifact takes one sequence."""
        free = self.contract.has_free_batch
        return list(dict.fromkeys(size if free else 1 for size in sizes))

    def expected(self, feeds: Arrays, states: Mapping[str, Array] | None = None) -> Expected:
        """Run the reference, and its float64 twin."""
        outputs, after = self.reference.run(feeds, states)
        digest = sha256_of_arrays({**feeds, **(states or {})})
        return Expected({**outputs, **after}, self._run_exact(feeds, states), digest)

    def run(self, feeds: Arrays, states: Mapping[str, Array] | None = None) -> Arrays:
        """Run the artifact once over whole sequences: outputs and, from given states, last states.

        Raises:
            ArtifactError: it does not run on what its contract describes.
        """
        with self._guarded():
            if states is None:
                return named(self.contract, self.artifact.run(feeds))
            return self._run_graph(feeds, states)

    def stream(
        self, feeds: Arrays, chunks: Iterable[int], *, stream: Stream | None = None, batch: int = 1
    ) -> Arrays:
        """Stream whole sequences to their end: outputs and, where they are comparable, last states.

        Args:
            feeds: the inputs by name.
            chunks: of how many frames each call is.
            stream: which goes on; a new one of `batch` sequences where it is left out.
            batch: how many sequences.

        Raises:
            ArtifactError: it does not stream as its contract describes.
        """
        stream = stream or self.artifact.stream(batch=batch)
        with self._guarded():
            outputs = feed_whole(stream, feeds, chunks)
        # Where the end takes a run of its own, it goes over frames behind the sequence.
        return outputs | ({} if self.contract.lags else self.reference.comparable(stream.states()))

    def feed(self, stream: Stream, feeds: Arrays) -> Arrays:
        """Feed a stream once: the outputs by name.

        Raises:
            ArtifactError: it does not stream as its contract describes.
        """
        with self._guarded():
            return named(self.contract, stream.feed(unwrap(feeds)))

    def judge(
        self, probe: str, actual: Mapping[str, Array], expected: Expected, run: dict[str, int]
    ) -> Iterator[Finding]:
        """Hold what the artifact gives against the reference: each output and state by itself."""
        for name, value in actual.items():
            pair = self._pair(name, value, expected.values[name], expected)
            yield from self._judge(self.gate, pair, expected, probe, name, run)

    def same(
        self,
        probe: str,
        actual: Mapping[str, Array],
        other: Mapping[str, Array],
        expected: Expected,
        run: dict[str, int],
    ) -> Iterator[Finding]:
        """Hold two runs of the artifact against each other.

        `expected` of the same frames tells how much rounding comes to; it may be empty. Only where
        a call's activations are rounded by their range is quality asked for, not the tolerance.
        """
        gate = self.gate if self.rounds_by_range else replace(self.gate, snr_db=None)
        for name, value in actual.items():
            pair = replace(self._pair(name, value, other[name], expected), exact=None)
            yield from self._judge(gate, pair, expected, probe, name, run)

    def note(self, text: str) -> None:
        """Tell a reader of the report, once."""
        if text not in self.notes:
            self.notes.append(text)

    @property
    def rounds_by_range(self) -> bool:
        """Whether an operator rounds activations by the range they have in a call."""
        return any(name.startswith("DynamicQuantize") for name in self.contract.operators)

    def verdict(self, probe: str, output: str, run: dict[str, int], reason: str | None) -> Finding:
        """A finding about a property, which holds where no reason says why it does not."""
        far = 0.0 if reason is None else float("inf")
        gate = self.gate
        return Finding(
            probe=probe,
            output=output,
            run=run,
            passed=reason is None,
            max_abs=far,
            required_atol=far,
            rtol=gate.rtol,
            atol=gate.atol_of(output),
            reason=reason,
        )

    def _keep(self, finding: Finding, gate: Gate, pair: Pair) -> None:
        """Keep a comparison to be drawn, if it is the worst of its output."""
        kept = self.evidence.get(finding.output)
        if kept is not None and kept.finding.severity >= finding.severity:
            return
        axes = {port.name: port.batch_axis for port in self.contract.outputs}
        batch_axis = axes.get(finding.output, 0)  # a state's is its first
        limits = allowed(gate, pair, finding.output)
        exact = pair.wanted if pair.exact is None else pair.exact
        span = Span(pair.actual, pair.wanted, exact, limits, batch_axis, pair.time_axis)
        evidence = gather(finding, span)
        if evidence is not None:
            self.evidence[finding.output] = evidence

    def _pair(self, name: str, actual: Array, wanted: Array, expected: Expected) -> Pair:
        axis = next((p.time_axis for p in self.contract.outputs if p.name == name), None)
        exact = expected.exact.get(name)
        known = exact is not None and exact.shape == actual.shape
        floors = floors_of(expected.values[name], exact, axis) if known else None
        return Pair(actual, wanted, exact, floors, axis)

    def _judge(
        self,
        gate: Gate,
        pair: Pair,
        expected: Expected,
        probe: str,
        name: str,
        run: dict[str, int],
    ) -> Iterator[Finding]:
        finding = judge(gate, pair, probe, name, run)
        if finding is not None:
            self._keep(finding, gate, pair)
            yield replace(finding, inputs_sha256=expected.inputs_sha256)
        else:
            self.note(f"{probe}: {name} was not judged, as torch's float32 is far off its float64")

    def _run_graph(self, feeds: Arrays, states: Mapping[str, Array]) -> Arrays:
        contract = self.contract
        starts = {state.input_name: states[state.name] for state in contract.states}
        names = [port.name for port in contract.outputs]
        afters = [state.output_name for state in contract.states]
        results = self.artifact.session.run([*names, *afters], {**feeds, **starts})
        outputs = dict(zip(names, results, strict=False))
        after = dict(zip((s.name for s in contract.states), results[len(names) :], strict=True))
        return outputs | self.reference.comparable(after)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise ArtifactError(
                f"{self.artifact.path!r} does not run on what its contract describes: {error}",
                hint="The graph or its metadata was edited by hand; export it again.",
            ) from error

    def _run_exact(self, feeds: Arrays, states: Mapping[str, Array] | None) -> Arrays:
        if self._exact is None:
            return {}
        try:
            outputs, after = self._exact.run(feeds, states)
        except InputError as error:  # a module may name float32 in its code
            self.note(f"held against float32 alone: {error}")
            self._exact = None
            return {}
        return {**outputs, **after}


def differ(one: Arrays, other: Arrays) -> bool:
    """Whether any value differs."""
    return not all(
        value.shape == other[name].shape and np.array_equal(value, other[name], equal_nan=True)
        for name, value in one.items()
    )


def row(contract: Contract, arrays: Mapping[str, Array], index: int) -> Arrays:
    """One sequence of each input, output and state; what counts no sequences stays as it is."""
    ports = (*contract.inputs, *contract.outputs)
    axes: dict[str, int | None] = {port.name: port.batch_axis for port in ports}
    return {name: _row(array, axes.get(name, 0), index) for name, array in arrays.items()}


def _row(array: Array, axis: int | None, index: int) -> Array:
    return array if axis is None else array[(slice(None),) * axis + (slice(index, index + 1),)]

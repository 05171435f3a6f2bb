"""A trial: the artifact, what it is held against, and how near: what every probe needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rnnx.parity.gate import Gate
from rnnx.parity.judge import Pair, judge
from rnnx.parity.metric import Metric
from rnnx.parity.recordings import Recording
from rnnx.parity.report import Finding
from rnnx_runtime import Contract, Model
from rnnx_runtime.errors import ArtifactError, InputError
from rnnx_runtime.samples import random_inputs

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


@dataclass(frozen=True, slots=True)
class Expected:
    """What the reference gives.

    Attributes:
        values: outputs and last states by name, as the reference computes them.
        exact: the same in float64, where there is such a reference; else empty.
    """

    values: Arrays
    exact: Arrays


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

    def states(self, rng: np.random.Generator, *, batch: int) -> Arrays:
        """Normal states by name; every state differs from every other and from zero."""
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
        return Expected({**outputs, **after}, self._run_exact(feeds, states))

    def run(self, feeds: Arrays, states: Mapping[str, Array]) -> Arrays:
        """One run of the artifact's graph from these states: outputs and last states by name.

        Raises:
            ArtifactError: the graph does not run on what its contract describes.
        """
        contract = self.contract
        starts = {state.input_name: states[state.name] for state in contract.states}
        names = [port.name for port in contract.outputs]
        afters = [state.output_name for state in contract.states]
        try:
            results = self.artifact.session.run([*names, *afters], {**feeds, **starts})
        except Exception as error:  # onnxruntime raises many unrelated classes
            raise ArtifactError(
                f"{self.artifact.path!r} does not run on what its contract describes: {error}",
                hint="The graph or its metadata was edited by hand; export it again.",
            ) from error
        outputs = dict(zip(names, results, strict=False))
        after = dict(zip((s.name for s in contract.states), results[len(names) :], strict=True))
        return outputs | self.reference.comparable(after)

    def judge(
        self, probe: str, actual: Mapping[str, Array], expected: Expected, run: dict[str, int]
    ) -> Iterator[Finding]:
        """One finding for each output and state of `actual` that can be judged."""
        axes = {port.name: port.time_axis for port in self.contract.outputs}
        for name, value in actual.items():
            pair = Pair(value, expected.values[name], expected.exact.get(name), axes.get(name))
            finding = judge(self.gate, pair, probe, name, run)
            if finding is not None:
                yield finding

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

    def _run_exact(self, feeds: Arrays, states: Mapping[str, Array] | None) -> Arrays:
        if self._exact is None:
            return {}
        try:
            outputs, after = self._exact.run(feeds, states)
        except InputError as error:  # a module may name float32 in its code
            self.notes.append(f"held against float32 alone: {error}")
            self._exact = None
            return {}
        return {**outputs, **after}

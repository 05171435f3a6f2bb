"""Another ONNX file as a reference: a quantized artifact's source, the offline one, a version."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime import Contract, Model, Port, State
from rnnx_runtime.errors import InputError
from rnnx_runtime.model import named, run_session

Array = npt.NDArray[Any]


class OnnxReference:
    """An artifact, run as the artifact of `contract` is run; needs no torch.

    States are compared where both have them: by name, kind, layer, dtype and shape.

    Args:
        path: the reference.
        contract: of the artifact that is held against it.

    Raises:
        ArtifactError: the file is no artifact.
        InputError: it does not take or give what the artifact does; says which.
    """

    def __init__(self, path: str | os.PathLike[str], contract: Contract) -> None:
        self._model = Model(path)
        own = self._model.contract
        self._absent = [port for port in own.inputs if _named(port, contract.inputs) is None]
        _hold(contract, own, self._absent)
        # Behind the last frame goes what holds frames back, and its states with it.
        self._shared = [] if own.lags else [s for s in contract.states if _is_shared(s, own)]
        self._has_all_states = len(self._shared) == len(contract.states) and not contract.lags

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Run the reference once over whole sequences.

        Args:
            feeds: the inputs by name.
            states: the states before the first frame, by name, each `[batch, ...]`; left out, those
                that the reference itself starts from.

        Returns:
            The outputs by name, and those states after the last frame that both have.

        Raises:
            InputError: the reference does not run on these inputs.
        """
        contract, batch = self._model.contract, _batch(self._model.contract, feeds)
        # What a stream no longer takes are initial states; it starts from zeros.
        zeros = {p.name: np.zeros(p.shape(batch=batch, frames=1), p.dtype) for p in self._absent}
        arrays = {**feeds, **zeros}
        if contract.lags:
            return named(contract, self._model.run(arrays)), {}
        starts = {state.name: state.start(batch=batch) for state in contract.states}
        starts |= self.comparable(states or starts)
        taken = {state.input_name: starts[state.name] for state in contract.states}
        names = {port.name: port.name for port in contract.outputs}
        afters = {state.name: state.output_name for state in self._shared}
        results = run_session(self._model, [*names.values(), *afters.values()], {**arrays, **taken})
        ends = {name: results[output] for name, output in afters.items()}
        return {name: results[name] for name in names}, ends

    def comparable(self, states: Mapping[str, Array]) -> dict[str, Array]:
        """The artifact's states that the reference has too."""
        return {state.name: states[state.name] for state in self._shared}

    @property
    def has_all_states(self) -> bool:
        """Whether the reference has all states of the artifact, so that both can begin with any."""
        return self._has_all_states

    @property
    def weights(self) -> int:
        """How many numbers it multiplies with, about: its file holds little else."""
        return os.path.getsize(self._model.path) // 4


def _named(port: Port, ports: Iterable[Port]) -> Port | None:
    return next((other for other in ports if other.name == port.name), None)


def _batch(contract: Contract, feeds: Mapping[str, Array]) -> int:
    sizes = [
        feeds[port.name].shape[port.batch_axis]
        for port in contract.inputs
        if port.name in feeds and port.batch_axis is not None
    ]
    return sizes[0] if sizes else 1


def _is_shared(state: State, own: Contract) -> bool:
    return any(_signature(state) == _signature(other) for other in own.states)


def _signature(state: State) -> tuple[Any, ...]:
    return state.name, state.kind, state.layer, state.dtype, state.shape(batch=1)


def _hold(contract: Contract, own: Contract, absent: Sequence[Port]) -> None:
    """Hold the reference's ports against the artifact's."""
    _hold_ports("input", contract.inputs, own.inputs)
    _hold_ports("output", contract.outputs, own.outputs)
    more = [port for port in own.outputs if _named(port, contract.outputs) is None]
    more += [port for port in absent if port.time_axis is not None or not contract.streaming]
    if more:
        raise _another(f"the reference has {str(more[0])!r}, which the artifact has not")


def _hold_ports(what: str, ports: Sequence[Port], others: Sequence[Port]) -> None:
    for port in ports:
        other = _named(port, others)
        if other is None:
            names = ", ".join(other.name for other in others)
            raise _another(
                f"the artifact's {what} {port.name!r} is none of the reference, whose {what}s are"
                f" {names}"
            )
        if not _fit(port, other):
            raise _another(f"the {what} is {port} in the artifact, {other} in the reference")
        if isinstance(port.batch_size, str) and isinstance(other.batch_size, int):
            raise InputError(
                f"the artifact takes any number of sequences, the reference {other.batch_size}",
                hint="Check the reference against the artifact: the other way round.",
            )


def _fit(port: Port, other: Port) -> bool:
    """Whether dtype, rank and every size that both fix agree; not how many frames a call takes."""
    if (port.dtype, len(port.dims)) != (other.dtype, len(other.dims)):
        return False
    pairs = enumerate(zip(port.dims, other.dims, strict=True))
    fixed = [(a, b) for axis, (a, b) in pairs if axis not in (port.time_axis, other.time_axis)]
    return all(a == b for a, b in fixed if isinstance(a, int) and isinstance(b, int))


def _another(message: str) -> InputError:
    return InputError(message, hint="Check against an artifact of the same network.")

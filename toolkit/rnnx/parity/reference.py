"""The torch model as a reference: run on named arrays, its recurrent states set and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils import _pytree as pytree

from rnnx_exporters.arguments import rebuild, record
from rnnx_exporters.capture import quiet
from rnnx_exporters.preparation import frozen_copy
from rnnx_runtime.contract import Contract, Dims, State
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]

# What the exporter names a node that a scan over cells became, which is no module's.
_OF_NO_MODULE = re.compile(r"(rnn|gru|lstm)\.l\d+(\.call\d+)?")


class TorchReference:
    """A torch model, run as the artifact of `contract` is run.

    Args:
        model: the network; it is copied and put in eval mode.
        contract: of the artifact it is held against.
        args: example arguments, where the contract does not record how they are nested.
        dtype: in which it computes.

    Attributes:
        module: the copy that is run.

    Raises:
        InputError: nothing tells how to call the model.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        contract: Contract,
        args: tuple[Any, ...] | None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._dtype = dtype
        self.module = frozen_copy(model).to(dtype)
        self._contract = contract
        self._arguments = _arguments(contract, args)
        self._states = _torch_states(self.module, contract)
        self._calls = _calls(self._states)

    def run(
        self, feeds: Mapping[str, Array], states: Mapping[str, Array] | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Run the model once.

        Args:
            feeds: the inputs by the artifact's names.
            states: the states before the first frame, by name (`s000`), each `[batch, ...]`; left
                out, those that the model itself starts from.

        Returns:
            The outputs by the artifact's names, and the states after the last frame.

        Raises:
            InputError: the model does not take or return what the artifact does.
        """
        after: dict[str, Array] = {}
        args = self._args(feeds)
        with torch.no_grad(), quiet(), self._stateful(states, after):
            try:
                result = self.module(*args)
            except Exception as error:  # the user's model may raise anything
                raise _another(f"the model cannot run as the artifact does: {error}") from error
        unmet = [state.module for state in self._states if state.name not in after]
        if unmet:
            raise _another(f"the artifact has states of {unmet[0]!r}, which the model never calls")
        leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        names = [port.name for port in self._contract.outputs]
        if len(leaves) != len(names):
            raise _another(f"the model returns {len(leaves)} tensors, the artifact {len(names)}")
        return {n: leaf.numpy() for n, leaf in zip(names, leaves, strict=True)}, after

    def comparable(self, states: Mapping[str, Array]) -> dict[str, Array]:
        """The artifact's states as torch has them: of an LSTM with a projection, `h` projected."""
        modules = dict(self.module.named_modules())
        return {
            state.name: _projected(modules.get(state.module), state, states[state.name])
            for state in self._states
        }

    @property
    def has_all_states(self) -> bool:
        """Whether the model has all states of the artifact, so that both can begin with any."""
        return len(self._states) == len(self._contract.states) and not self._contract.lags

    @property
    def weights(self) -> int:
        """How many numbers the model multiplies with."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def _args(self, feeds: Mapping[str, Array]) -> tuple[Any, ...]:
        batch = _batch(self._contract, feeds)

        def value_of(name: str, dtype: str, dims: Dims) -> torch.Tensor:
            if name in feeds:
                return self._cast(feeds[name])
            # A state that the user passed in: the stream carries it now, the hooks set it.
            shape = [dim if isinstance(dim, int) else batch for dim in dims]
            return self._cast(np.zeros(shape, dtype))

        return rebuild(self._arguments, value_of)

    def _cast(self, array: Array) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.to(self._dtype) if tensor.is_floating_point() else tensor

    @contextmanager
    def _stateful(
        self, states: Mapping[str, Array] | None, after: dict[str, Array]
    ) -> Iterator[None]:
        """Give every recurrent module its states at each call, and note those it ends with."""
        with ExitStack() as stack:
            for path, calls in self._calls.items():
                module = _module_at(self.module, path)
                behind = module.register_forward_hook(_noting(iter(calls), after))
                stack.callback(behind.remove)
                if states is not None:
                    setting = _setting(
                        iter(calls), {n: self._cast(s) for n, s in self.comparable(states).items()}
                    )
                    before = module.register_forward_pre_hook(setting, with_kwargs=True)
                    stack.callback(before.remove)
            yield


def _arguments(contract: Contract, args: tuple[Any, ...] | None) -> Any:
    recorded = contract.source.get("arguments")
    if recorded is not None:
        return recorded
    if args is None:
        raise InputError(
            "the artifact does not record how its model is called", hint="Give example arguments."
        )
    tensors = sum(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(args))
    if tensors != len(contract.inputs):
        raise InputError(
            f"{tensors} example tensors for {len(contract.inputs)} inputs",
            hint="Give one tensor for each input of the artifact.",
        )
    return record(args, contract.inputs)


def _torch_states(model: torch.nn.Module, contract: Contract) -> list[State]:
    """The states that torch's own layers have; caches and a scan's are the artifact's alone."""
    modules = dict(model.named_modules())
    return [
        state
        for state in contract.states
        if state.kind in ("h", "c") and _is_torchs(state.module, modules)
    ]


def _is_torchs(path: str, modules: Mapping[str, torch.nn.Module]) -> bool:
    """Whether a state's module is one of torch's layers, or should be: then its absence is told."""
    if path in modules or _OF_NO_MODULE.fullmatch(path):
        return isinstance(modules.get(path, modules[""]), torch.nn.RNNBase)
    return True


def _calls(states: Sequence[State]) -> dict[str, list[list[State]]]:
    """For each module the states of each of its calls: a state met again begins the next call."""
    calls: dict[str, list[list[State]]] = {}
    for state in states:
        own = calls.setdefault(state.module, [[]])
        if any((s.layer, s.kind) == (state.layer, state.kind) for s in own[-1]):
            own.append([])
        own[-1].append(state)
    return calls


def _module_at(root: torch.nn.Module, path: str) -> torch.nn.Module:
    module = dict(root.named_modules()).get(path, root)
    if not isinstance(module, torch.nn.RNNBase):
        raise _another(
            f"the artifact's states belong to a recurrent module {path!r}, which the model lacks"
        )
    return module


def _projected(module: torch.nn.Module | None, state: State, value: Array) -> Array:
    if not isinstance(module, torch.nn.LSTM) or not module.proj_size or state.kind != "h":
        return value
    projection: torch.Tensor = getattr(module, f"weight_hr_l{state.layer}")
    projected: Array = value @ projection.detach().numpy().T.astype(value.dtype)
    return projected


def _setting(
    calls: Iterator[list[State]], states: Mapping[str, torch.Tensor]
) -> Callable[..., Any]:
    def hook(module: torch.nn.RNNBase, args: Any, kwargs: Any) -> Any:
        own = next(calls, [])
        x = args[0] if args else kwargs["input"]
        unbatched = x.dim() == 2
        stacked = [_stack(own, states, kind, unbatched) for kind in ("h", "c")]
        hx = tuple(s for s in stacked if s is not None)
        return (x, hx if len(hx) > 1 else hx[0]), {}

    return hook


def _noting(calls: Iterator[list[State]], after: dict[str, Array]) -> Callable[..., Any]:
    def hook(module: torch.nn.RNNBase, args: Any, result: Any) -> None:
        finals = result[1] if isinstance(result[1], tuple) else (result[1],)
        for state in next(calls, []):
            value = finals["hc".index(state.kind)][state.layer].numpy()
            after[state.name] = value.reshape(-1, *state.shape(batch=1)[1:-1], value.shape[-1])

    return hook


def _stack(
    own: list[State], states: Mapping[str, torch.Tensor], kind: str, unbatched: bool
) -> torch.Tensor | None:
    """The states of one kind as torch takes them, `[num_layers, batch, hidden_size]`."""
    layers = sorted((s for s in own if s.kind == kind), key=lambda s: s.layer)
    if not layers:
        return None
    stacked = torch.stack([states[s.name].flatten(0, -2) for s in layers])
    return stacked[:, 0] if unbatched else stacked


def _another(message: str) -> InputError:
    return InputError(message, hint="Check against the model that the artifact was exported from.")


def _batch(contract: Contract, feeds: Mapping[str, Array]) -> int:
    sizes = [feeds[p.name].shape[p.batch_axis] for p in contract.inputs if p.batch_axis is not None]
    return sizes[0] if sizes else 1

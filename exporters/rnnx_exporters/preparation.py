"""Prepares a copy of the user's model for export; the user's own is left as it was."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize, remove_weight_norm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils import _pytree as pytree

from rnnx_runtime.errors import ExportError

# What torch itself keeps in a module, besides the weights.
_TORCHS_OWN = frozenset(vars(torch.nn.LSTM(1, 1)))
_MADE_BY_TYPE = frozenset({"__dict__", "__weakref__"})


def frozen_copy(model: torch.nn.Module) -> torch.nn.Module:
    """A copy in eval mode, on the CPU, in float32, its parametrizations computed once and for all.

    Raises:
        ExportError: the model holds something that cannot be copied.
    """
    try:
        module = copy.deepcopy(model, memo=_computed(model))
    except Exception as error:  # a model may hold anything
        raise ExportError(
            f"the model cannot be copied: {error}",
            hint="Keep no open files, locks or generators as attributes of the model.",
        ) from error
    module = module.eval().requires_grad_(False).cpu().float()
    for part in module.modules():
        _remove_parametrizations(part)
    module.register_forward_hook(_without_dataclass)
    return module


def prepared_args(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The example arguments as the copy takes them: on the CPU, floats in float32."""
    prepared: tuple[Any, ...] = pytree.tree_map(_prepared, args)
    return prepared


def refuse_kept_state(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
    """Refuse a model that remembers something between calls: its artifact would forget it.

    A value that is only cached, so that the next call gives the same, is no state.

    Raises:
        ExportError: names the attribute.
    """
    probe = copy.deepcopy(module)
    before = dict(_attributes(probe))
    with torch.no_grad():
        first, second = (pytree.tree_leaves(probe(*args)) for _ in range(2))
    if _same(first, second):
        return
    changed = [name for name, value in _attributes(probe) if not _same(before.get(name), value)]
    if changed:
        raise ExportError(
            f"the model keeps state in its attribute {changed[0]!r} between calls, which its"
            " artifact would forget",
            hint="Take the state as an argument of forward and return it; with streaming, rnnx"
            " carries it from chunk to chunk.",
        )


def _computed(model: torch.nn.Module) -> dict[int, Tensor]:
    """Detached copies of tensors that were computed from parameters, which deepcopy refuses."""
    return {
        id(value): value.detach().clone()
        for part in model.modules()
        for value in vars(part).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }


def _remove_parametrizations(part: torch.nn.Module) -> None:
    if parametrize.is_parametrized(part):
        _own_class(part)
        for name in list(part.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(part, name, leave_parametrized=True)
    for hook in list(part._forward_pre_hooks.values()):
        if isinstance(hook, WeightNorm):
            remove_weight_norm(part, hook.name)


def _own_class(part: torch.nn.Module) -> None:
    """Give a parametrized copy a class of its own: torch keeps the parametrizations there."""
    shared = type(part)
    own = {key: value for key, value in vars(shared).items() if key not in _MADE_BY_TYPE}
    part.__class__ = type(shared.__name__, shared.__bases__, own)


def _without_dataclass(module: torch.nn.Module, args: Any, result: Any) -> Any:
    """A dataclass as a dict of its fields that are set: torch.export takes no unknown classes."""
    if not dataclasses.is_dataclass(result) or isinstance(result, type):
        return result
    names = [field.name for field in dataclasses.fields(result)]
    fields = {name: getattr(result, name) for name in names}
    return {name: value for name, value in fields.items() if value is not None}


def _prepared(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return value.float() if value.is_floating_point() else value


def _attributes(module: torch.nn.Module) -> Iterator[tuple[str, list[Tensor]]]:
    """The tensors that a model holds besides its parameters, by the attribute's name."""
    for path, part in module.named_modules():
        own = {key: value for key, value in vars(part).items() if key not in _TORCHS_OWN}
        for key, value in (own | dict(part._buffers)).items():
            tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
            yield f"{path}.{key}".removeprefix("."), [tensor.clone() for tensor in tensors]


def _same(one: list[Any] | None, other: list[Any]) -> bool:
    if one is None or len(one) != len(other):
        return False
    pairs = zip(one, other, strict=True)
    return all(
        a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
        for a, b in pairs
        if isinstance(a, Tensor) and isinstance(b, Tensor)
    )

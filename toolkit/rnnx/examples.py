"""Makes example arguments for an export: from `x=float32[batch,time,40]`, or an .npz file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnnx_runtime.errors import InputError

_FORM = "Write it as name=dtype[dims]: x=float32[batch,time,40], tokens=int64[batch,time]."
_SIZES = {"batch": 2, "time": 11}
_OTHER_SIZE = 7


def from_declarations(
    model: torch.nn.Module, declarations: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, dict[int, str]]]:
    """Example arguments and their free axes.

    Args:
        model: the network; its forward's argument names are used.
        declarations: one `name=dtype[dims]` for each argument; a dim is a size or a name.

    Raises:
        InputError: a declaration cannot be read or names no argument.
    """
    declared = dict(_declaration(text) for text in declarations)
    rng = np.random.default_rng(0)
    tensors = {name: _example(dtype, dims, rng) for name, (dtype, dims) in declared.items()}
    free = {
        name: {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}
        for name, (_, dims) in declared.items()
    }
    return _positional(model, tensors), free


def from_arrays(model: torch.nn.Module, path: str) -> tuple[Any, ...]:
    """Example arguments from an .npz file that holds an array for each argument.

    Raises:
        InputError: the file cannot be read, or its names are not the model's arguments.
    """
    if not Path(path).is_file():
        raise InputError(f"no file at {path!r}", hint="Check the path given to --inputs.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path!r} is not an .npz archive of arrays: {error}",
            hint="Save one with numpy.savez(path, x=...).",
        ) from error
    return _positional(model, {name: torch.from_numpy(array) for name, array in arrays.items()})


def _declaration(text: str) -> tuple[str, tuple[str, list[int | str]]]:
    match = re.fullmatch(r"\s*(\w+)\s*=\s*(\w+)\s*\[([^\]]*)\]\s*", text)
    if match is None:
        raise InputError(f"the input {text!r} cannot be read", hint=_FORM)
    name, dtype, inner = match.groups()
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise InputError(f"the input {text!r} has the unknown dtype {dtype!r}", hint=_FORM)
    return name, (dtype, [_dim(part.strip(), text) for part in inner.split(",") if part.strip()])


def _dim(part: str, text: str) -> int | str:
    if part.isdigit() and int(part) > 0:
        return int(part)
    if part.isidentifier():
        return part
    raise InputError(f"{part!r} in the input {text!r} is neither a size nor a name", hint=_FORM)


def _example(dtype: str, dims: list[int | str], rng: np.random.Generator) -> torch.Tensor:
    shape = [dim if isinstance(dim, int) else _SIZES.get(dim, _OTHER_SIZE) for dim in dims]
    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.from_numpy(rng.standard_normal(shape)).to(kind)
    return torch.from_numpy(rng.integers(0, 2, shape)).to(kind)  # ids any table has


def _positional(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, ...]:
    """The tensors in the order of the model's arguments; None for optional ones between."""
    parameters = inspect.signature(model.forward).parameters
    unknown = [name for name in tensors if name not in parameters]
    required = [
        n for n, p in parameters.items() if p.default is p.empty and p.kind < p.VAR_POSITIONAL
    ]
    missing = [name for name in required if name not in tensors]
    if unknown or missing:
        raise InputError(
            f"the model takes {', '.join(parameters)}; missing: {missing}, unknown: {unknown}",
            hint="Name each input after an argument of the model's forward.",
        )
    last = max(list(parameters).index(name) for name in tensors)
    return tuple(
        tensors.get(name, parameters[name].default) for name in list(parameters)[: last + 1]
    )

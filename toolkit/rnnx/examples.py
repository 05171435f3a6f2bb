"""Makes example arguments for an export: from `x=float32[batch,time,40]`, or an .npz file."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from rnnx_exporters.preparation import frozen_copy
from rnnx_runtime.contract import DTYPES, MAX_ELEMENTS
from rnnx_runtime.errors import InputError

_FORM = "Write it as name=dtype[dims]: x=float32[batch,time,40], tokens=int64[batch,time]."
_BATCH, _OTHER_SIZE = 2, 7
# Tried in turn until the model runs: it may need many frames, or a number that it can halve.
_LENGTHS = (11, 64, 1024, 16384, 163840)


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
    declared: dict[str, tuple[str, list[int | str]]] = {}
    for text in declarations:
        name, dtype, dims = _declaration(text)
        if name in declared:
            raise InputError(f"the input {name!r} is declared twice", hint=_FORM)
        declared[name] = dtype, dims
    free = {
        name: {axis: dim for axis, dim in enumerate(dims) if isinstance(dim, str)}
        for name, (_, dims) in declared.items()
    }
    lengths = _LENGTHS if any("time" in axes.values() for axes in free.values()) else _LENGTHS[:1]
    tried = (_examples(model, declared, frames) for frames in lengths)
    running = (args for args in tried if _runs(model, args))
    return next(running, _examples(model, declared, lengths[0])), free


def _examples(
    model: torch.nn.Module, declared: Mapping[str, tuple[str, list[int | str]]], frames: int
) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    sizes = {"batch": _BATCH, "time": frames}
    tensors = {n: _example(dtype, dims, sizes, rng) for n, (dtype, dims) in declared.items()}
    return _positional(model, tensors)


def _runs(model: torch.nn.Module, args: tuple[Any, ...]) -> bool:
    try:
        with torch.no_grad():
            frozen_copy(model)(*args)
    except Exception:  # whatever it raises; the export tells it
        return False
    return True


def from_arrays(model: torch.nn.Module, path: str) -> tuple[Any, ...]:
    """Example arguments from an .npz file that holds an array for each argument.

    Raises:
        InputError: the file cannot be read, or its names are not the model's arguments.
    """
    if not Path(path).is_file():
        raise InputError(f"no file at {path!r}", hint="Check the path given to --inputs.")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except Exception as error:  # numpy and zipfile raise unrelated classes
        raise InputError(
            f"{path!r} is not an .npz archive of plain arrays",
            hint="Save one with numpy.savez(path, x=...).",
        ) from error
    return _positional(model, {name: _tensor(name, array) for name, array in arrays.items()})


def _tensor(name: str, array: npt.NDArray[Any]) -> torch.Tensor:
    if array.dtype.name not in DTYPES:
        raise InputError(
            f"the input {name!r} is of dtype {array.dtype}",
            hint=f"Take one of {', '.join(DTYPES)}.",
        )
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


def _declaration(text: str) -> tuple[str, str, list[int | str]]:
    match = re.fullmatch(r"\s*(\w+)\s*=\s*(\w+)\s*\[([^\]]*)\]\s*", text)
    if match is None:
        raise InputError(f"the input {text!r} cannot be read", hint=_FORM)
    name, dtype, inner = match.groups()
    if dtype not in DTYPES:
        raise InputError(
            f"the input {text!r} has the unknown dtype {dtype!r}",
            hint=f"{_FORM} The dtypes are {', '.join(DTYPES)}.",
        )
    dims = [_dim(part.strip(), text) for part in inner.split(",")] if inner.strip() else []
    if math.prod(dim for dim in dims if isinstance(dim, int)) > MAX_ELEMENTS:
        raise InputError(f"the input {text!r} is too large for an example", hint=_FORM)
    return name, dtype, dims


def _dim(part: str, text: str) -> int | str:
    if re.fullmatch("[0-9]{1,9}", part) and int(part) > 0:
        return int(part)
    if part.isidentifier():
        return part
    raise InputError(f"{part!r} in the input {text!r} is neither a size nor a name", hint=_FORM)


def _example(
    dtype: str, dims: list[int | str], sizes: Mapping[str, int], rng: np.random.Generator
) -> torch.Tensor:
    shape = [dim if isinstance(dim, int) else sizes.get(dim, _OTHER_SIZE) for dim in dims]
    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.from_numpy(rng.standard_normal(shape)).to(kind)
    return torch.from_numpy(rng.integers(0, 2, shape)).to(kind)  # ids any table has


def _positional(model: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> tuple[Any, ...]:
    """The tensors in the order of the model's arguments; defaults for optional ones between."""
    parameters = inspect.signature(model.forward).parameters.values()
    positional = [p for p in parameters if p.kind < p.VAR_POSITIONAL]
    names = [p.name for p in positional]
    unknown = [name for name in tensors if name not in names]
    missing = [p.name for p in positional if p.default is p.empty and p.name not in tensors]
    if unknown or missing:
        raise InputError(
            f"the model takes {', '.join(names)}; missing: {missing}, unknown: {unknown}",
            hint="Name each input after a positional argument of the model's forward.",
        )
    count = max((names.index(name) + 1 for name in tensors), default=0)
    return tuple(tensors.get(p.name, p.default) for p in positional[:count])

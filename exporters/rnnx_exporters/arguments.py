"""How a model's arguments are nested, as JSON in the contract, so that a check can call the model.

`forward(x, (h0, c0), None)` is recorded as `[leaf, [leaf, leaf], None]`, where a leaf names the
artifact's input with its dtype and dims.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from rnnx_runtime.contract import Dims, Port
from rnnx_runtime.errors import InputError


def record(args: tuple[Any, ...], ports: Sequence[Port]) -> Any:
    """The nesting of `args`, whose tensors are the `ports` in order."""
    left = iter(ports)
    return [_record(arg, left) for arg in args]


def rebuild(recorded: Any, value_of: Callable[[str, str, Dims], Any]) -> tuple[Any, ...]:
    """Arguments in the recorded nesting; `value_of(name, dtype, dims)` gives each tensor.

    Raises:
        InputError: what was recorded is damaged.
    """
    try:
        return tuple(_rebuild(item, value_of) for item in recorded)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"the contract's record of the model's arguments is damaged: {error}",
            hint="Give example arguments to the check.",
        ) from error


def _record(value: Any, ports: Iterator[Port]) -> Any:
    if isinstance(value, torch.Tensor):
        port = next(ports)
        return {"input": port.name, "dtype": port.dtype, "dims": list(port.dims)}
    if isinstance(value, list | tuple):
        return [_record(item, ports) for item in value]
    if isinstance(value, dict):
        return {"dict": {str(key): _record(item, ports) for key, item in value.items()}}
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def _rebuild(item: Any, value_of: Callable[[str, str, Dims], Any]) -> Any:
    if isinstance(item, list):
        return tuple(_rebuild(part, value_of) for part in item)
    if isinstance(item, dict) and "dict" in item:
        return {key: _rebuild(part, value_of) for key, part in item["dict"].items()}
    if isinstance(item, dict):
        return value_of(item["input"], item["dtype"], tuple(item["dims"]))
    return item

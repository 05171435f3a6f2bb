"""A pool that torch can capture: its own `max_pool1d` freezes the length of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.modules.utils import _single


def handlers() -> dict[Any, Callable[..., Tensor]]:
    """For torch's function and its namesake in `torch.nn.functional`, what runs instead."""
    return {torch.max_pool1d: _max_pool1d, functional.max_pool1d: _max_pool1d}


def _max_pool1d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,  # True never comes here: it is another function
) -> Tensor:
    """The pool over `x` [..., features, time] as one over [..., features, 1, time]."""
    sizes = (kernel_size, stride or kernel_size, padding, dilation)
    kernel, step, edge, spread = (_single(size)[0] for size in sizes)
    options = ((1, kernel), (1, step), (0, edge), (1, spread), ceil_mode)
    return torch.max_pool2d(x.unsqueeze(-2), *options).squeeze(-2)

"""torch's scan operator, which runs along axis 0 and lets no output share memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch._higher_order_ops.scan import scan
from torch.utils import _pytree as pytree


def scan_operator(
    step: Callable[[Any, Any], tuple[Any, Any]], state: Any, x: Any, dim: int
) -> tuple[Any, Any]:
    """Run `step` over the frames of `x` along `dim`, as one operator; as `rnnx.scan` takes them."""

    def run(carry: Any, frame: Any) -> tuple[Any, Any]:
        result: tuple[Any, Any] = pytree.tree_map(torch.clone, step(carry, frame))
        return result

    # A state may be given twice, or be seen by the step otherwise; torch takes that for aliasing.
    state = pytree.tree_map(partial(torch.clone, memory_format=torch.contiguous_format), state)
    frames = pytree.tree_map(lambda leaf: leaf.movedim(dim, 0), x)
    with torch._C.DisableTorchFunction():
        state, outputs = scan(run, state, frames)
    return state, pytree.tree_map(lambda leaf: leaf.movedim(0, dim), outputs)

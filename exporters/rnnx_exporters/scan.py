"""`rnnx.scan`: a loop over time that trains in torch and exports with a free length.

A Python loop over the frames of a tensor freezes the length in torch.export. `scan` is that loop in
eager torch; in an export it becomes one native operator where the step is one of torch's cells or
is recognised as an RNN, GRU or LSTM (`recognise.py`), and one ONNX Scan otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.modules.rnn import RNNCellBase
from torch.utils import _pytree as pytree

from rnnx_exporters.recurrent import active
from rnnx_exporters.scan_operator import scan_operator
from rnnx_runtime.errors import InputError

State = TypeVar("State")
Step = Callable[[State, Any], tuple[State, Any]]


def scan(
    step: Step[State] | RNNCellBase, state: State, x: Any, *, dim: int = 1
) -> tuple[State, Any]:
    """Run `step` over the frames of `x`, as a Python loop would.

        for frame in x.unbind(dim):
            state, y = step(state, frame)

    Args:
        step: takes the state and one frame, returns the next state and one output; or an
            `nn.RNNCell`, `nn.GRUCell` or `nn.LSTMCell`, whose output is its `h`.
        state: the state before the first frame, a tensor or nested tuples of tensors.
        x: the frames, `[batch, time, ...]`; a tensor or nested tuples of tensors.
        dim: the time axis of `x` and of the outputs.

    Returns:
        The state after the last frame, and the outputs, stacked along `dim`.

    Raises:
        InputError: `x` has no frames, or `step` changes the shape of the state.
    """
    exporting = active()
    if exporting is None:
        return _loop(_as_step(step), state, x, dim)
    if isinstance(step, RNNCellBase):
        return exporting.run_cell(step, state, x, dim)
    return scan_operator(step, state, x, dim)


def _as_step(step: Step[Any] | RNNCellBase) -> Step[Any]:
    if not isinstance(step, RNNCellBase):
        return step

    def run(state: Any, frame: Tensor) -> tuple[Any, Tensor]:
        state = step(frame, state)
        return state, state[0] if isinstance(state, tuple) else state

    return run


def _loop(step: Step[Any], state: Any, x: Any, dim: int) -> tuple[Any, Any]:
    outputs = []
    frames = {leaf.shape[dim] for leaf in pytree.tree_leaves(x)}
    if len(frames) != 1 or 0 in frames:
        raise InputError(f"x must have frames along axis {dim}, the same number in each tensor")
    for t in range(frames.pop()):
        before = _shapes(state)
        state, y = step(state, pytree.tree_map(lambda leaf, t=t: leaf.select(dim, t), x))
        if _shapes(state) != before:
            raise InputError(f"step changes the state's shapes from {before} to {_shapes(state)}")
        outputs.append(y)
    return state, pytree.tree_map(lambda *ys: torch.stack(ys, dim), *outputs)


def _shapes(state: Any) -> list[tuple[int, ...]]:
    return [tuple(leaf.shape) for leaf in pytree.tree_leaves(state)]

"""Two tasks that ask at the end of a sequence for what came long before."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

FRAMES = 24

_BATCH = 64
_SYMBOLS, _COPIED = 4, 2

# Inputs [batch, time, features] and the target.
Batch = tuple[Tensor, Tensor]


def adding(rng: torch.Generator) -> Batch:
    """Numbers in [0, 1], two of them marked, one in each half; the target is the sum of these."""
    x = torch.zeros(_BATCH, FRAMES, 2)
    x[..., 0] = torch.rand(_BATCH, FRAMES, generator=rng)
    for start in (0, FRAMES // 2):
        marked = torch.randint(start, start + FRAMES // 2, (_BATCH, 1), generator=rng)
        x[..., 1].scatter_(1, marked, 1.0)
    return x, (x[..., 0] * x[..., 1]).sum(1, keepdim=True)


def copying(rng: torch.Generator) -> Batch:
    """Two symbols, then blanks; the target is the symbols, int64 `[batch, 2]`."""
    symbols = torch.randint(_SYMBOLS, (_BATCH, _COPIED), generator=rng)
    x = torch.zeros(_BATCH, FRAMES, _SYMBOLS)
    x[:, :_COPIED] = nn.functional.one_hot(symbols, _SYMBOLS).float()
    return x, symbols


def squares(answer: Tensor, target: Tensor) -> Tensor:
    """Mean squared error."""
    return nn.functional.mse_loss(answer, target)


def nats(answer: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of each symbol."""
    return nn.functional.cross_entropy(answer.reshape(-1, _COPIED, _SYMBOLS).mT, target)


@dataclass(frozen=True, slots=True)
class Task:
    """A task: what draws a batch, its loss, the sizes of a frame and of the answer."""

    draw: Callable[[torch.Generator], Batch]
    loss: Callable[[Tensor, Tensor], Tensor]
    inputs: int
    outputs: int
    naive: float


TASKS = {
    # Two numbers in [0, 1] have the mean 1 and the variance 2/12.
    "adding": Task(adding, squares, 2, 1, naive=1 / 6),
    "copying": Task(copying, nats, _SYMBOLS, _COPIED * _SYMBOLS, naive=math.log(_SYMBOLS)),
}

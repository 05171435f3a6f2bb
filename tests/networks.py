"""Small recurrent networks in torch, each with example arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Network = tuple[nn.Module, tuple[Any, ...]]

SIZE = 4  # features and hidden_size alike, so that the weights of layers can be exchanged


class Plain(nn.Module):
    """One recurrent module: `x` [batch, time, 4] to its output frames."""

    def __init__(
        self, kind: str, *, features: int = SIZE, hidden_size: int = SIZE, **options: Any
    ) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(features, hidden_size, **({"batch_first": True} | options))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rnn(x)[0]
        return y


class Explicit(Plain):
    """Takes its states, and gives those it ends with."""

    def forward(self, x: Tensor, hx: Any) -> Any:  # type: ignore[override]
        return self.rnn(x, hx)


class Twice(Plain):
    """Calls one module two times in a forward."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(super().forward(x))


class Tokens(nn.Module):
    """A language model over 11 tokens, ids int64 [batch, time]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, SIZE)
        self.lstm = nn.LSTM(SIZE, SIZE, batch_first=True)
        self.head = nn.Linear(SIZE, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.lstm(self.embedding(tokens))[0])
        return logits


class Two(nn.Module):
    """An LSTM under a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = nn.LSTM(SIZE, SIZE, batch_first=True)
        self.upper = nn.GRU(SIZE, SIZE, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.upper(self.lower(x)[0])[0]
        return y


class Learned(Plain):
    """Starts from a state that was trained."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.start = nn.Parameter(torch.randn(1, 1, SIZE))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rnn(x, self.start.expand(-1, x.shape[0], -1).contiguous())[0]
        return y


def network(make: Callable[[], nn.Module], *shapes: tuple[int, ...], seed: int = 0) -> Network:
    """The network and normal example arguments; weights and arguments follow from `seed`."""
    torch.manual_seed(seed)
    return make(), tuple(torch.randn(shape) for shape in shapes)


X = (2, 7, SIZE)
STATE = (2, 2, SIZE)


def _explicit(kind: str) -> Network:
    model, (x, h, c) = network(lambda: Explicit(kind, num_layers=2), X, STATE, STATE)
    return model, (x, (h, c) if kind == "LSTM" else h)


NETWORKS: dict[str, Callable[[], Network]] = {
    "rnn": lambda: network(lambda: Plain("RNN", num_layers=2), X),
    "rnn-relu": lambda: network(lambda: Plain("RNN", nonlinearity="relu"), X),
    "gru": lambda: network(lambda: Plain("GRU", num_layers=2), X),
    "wide": lambda: network(lambda: Plain("GRU", hidden_size=48), X),
    "lstm": lambda: network(lambda: Plain("LSTM", num_layers=2), X),
    "bidirectional": lambda: network(lambda: Plain("LSTM", bidirectional=True), X),
    "time-first": lambda: network(lambda: Plain("LSTM", batch_first=False), (7, 2, SIZE)),
    "unbatched": lambda: network(lambda: Plain("GRU"), (7, SIZE)),
    "explicit-gru": lambda: _explicit("GRU"),
    "explicit-lstm": lambda: _explicit("LSTM"),
    "twice": lambda: network(lambda: Twice("GRU"), X),
    "two": lambda: network(Two, X),
    "learned": lambda: network(lambda: Learned("GRU"), X),
    "tokens": lambda: (network(Tokens)[0], (torch.randint(11, X[:2]),)),
}

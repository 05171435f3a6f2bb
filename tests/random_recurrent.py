"""Random recurrent networks in torch, among them such whose errors grow with every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FEATURES = 3
# Times the recurrent weights that torch starts with: contractive, about the edge, expansive.
GAINS = (1.0, 1.5, 2.0, 4.0)


class Block(nn.Module):
    """Recurrent layers, and what often stands around them."""

    def __init__(self, rng: np.random.Generator, features: int) -> None:
        super().__init__()
        kind, hidden = str(rng.choice(["RNN", "GRU", "LSTM"])), int(rng.integers(1, 33))
        options: dict[str, Any] = {"num_layers": int(rng.integers(1, 4)), "batch_first": True}
        options["bias"] = bool(rng.integers(5))
        if kind == "LSTM" and hidden > 1 and rng.integers(2):
            options["proj_size"] = int(rng.integers(1, hidden))
        if kind == "RNN":
            options["nonlinearity"] = str(rng.choice(["tanh", "relu"]))
        self.rnn = getattr(nn, kind)(features, hidden, **options)
        self.size = options.get("proj_size", hidden)
        self.norm = nn.LayerNorm(self.size) if rng.integers(3) == 0 else nn.Identity()
        self.skip = nn.Linear(features, self.size) if rng.integers(2) else None
        gain = float(rng.choice(GAINS))
        if options.get("nonlinearity") == "relu":
            gain = 1.0  # it has no bound: within hundreds of steps it would be infinite
        for name, weight in self.rnn.named_parameters():
            weight.data *= gain if "weight_hh" in name else 1.0

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.rnn(x)[0])
        return y if self.skip is None else y + self.skip(x)


class Blocks(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.blocks, size = nn.ModuleList(), FEATURES
        for _ in range(int(rng.integers(1, 4))):
            self.blocks.append(Block(rng, size))
            size = self.blocks[-1].size
        self.head = nn.Linear(size, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(x)
        return y


def random_network(seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network of one to three blocks and example arguments."""
    return Blocks(seed).eval(), (torch.randn(2, 7, FEATURES),)

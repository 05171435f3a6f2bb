"""Forecast the next hour's temperature with a small recurrent network, in plain PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rnnx.recipes.data import FEATURES, Scale, Series, Split, features
from rnnx_runtime.errors import InputError

# A forecast counts once a day has been read: by then the state has seen what a day looks like.
WARM_UP = 24

_WINDOW = 2 * WARM_UP
_BATCH = 64
_LEARNING_RATE = 0.01
_CELLS = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

State = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


class Forecaster(nn.Module):
    """Reads one hour after the other and forecasts the temperature of the next.

    Args:
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        hidden_size: units of the recurrent layer.

    Raises:
        InputError: there is no such cell.
    """

    def __init__(self, cell: str = "gru", hidden_size: int = 64) -> None:
        super().__init__()
        if cell not in _CELLS:
            raise InputError(
                f"there is no cell {cell!r}", hint=f"Choose one of {', '.join(_CELLS)}."
            )
        self.recurrent = _CELLS[cell](len(FEATURES), hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Forecast whole sequences.

        Args:
            x: float32 `[batch, time, 5]`, as `features` makes it.

        Returns:
            For each hour the next hour's temperature, normalised, float32 `[batch, time, 1]`.
        """
        return self.step(x)[0]

    def step(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Forecast from `state` on; the forecasts and the state after them."""
        hidden, state = self.recurrent(x, state)
        return x[..., :1] + self.head(hidden), state  # the head says how the temperature changes


def train(
    data: Split,
    *,
    cell: str = "gru",
    epochs: int = 8,
    patience: int = 3,
    seed: int = 0,
    on_epoch: Callable[[int, float], object] = lambda epoch, rmse: None,
) -> Forecaster:
    """Train until the validation part has not improved for `patience` epochs; the best weights.

    Args:
        data: the split series; the test part is not looked at.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        epochs: at most so many passes over the training part.
        patience: epochs without improvement to bear.
        seed: of the first weights and the order of the windows.
        on_epoch: called after each epoch with its number, from 1, and the validation part's RMSE
            in degrees Fahrenheit.
    """
    torch.manual_seed(seed)
    model = Forecaster(cell)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    windows = TensorDataset(*training_windows(data))
    batches = DataLoader(windows, batch_size=_BATCH, shuffle=True)
    best, weights, last = float("inf"), model.state_dict(), 0
    for epoch in range(1, epochs + 1):
        for x, target in batches:
            _descend(model, optimizer, x, target)
        score = rmse(forecast(model, data.validation, data.scale), data.validation)
        on_epoch(epoch, score)
        if score < best:
            best, weights, last = score, copy.deepcopy(model.state_dict()), epoch
        if epoch - last == patience:
            break
    model.load_state_dict(weights)
    return model.eval()


def training_windows(data: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Every two days of the training part, and for each of their hours the next temperature.

    Returns:
        Inputs `[windows, 48, 5]` and targets `[windows, 48, 1]`, float32, normalised.
    """
    x = torch.from_numpy(features(data.train, data.scale))
    windows = x.unfold(0, _WINDOW + 1, 1).transpose(1, 2)
    return windows[:, :-1], windows[:, 1:, :1]


def loss(model: Forecaster, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the forecasts that count."""
    return nn.functional.mse_loss(model(x)[:, WARM_UP:], target[:, WARM_UP:])


def forecast(model: Forecaster, part: Series, scale: Scale) -> npt.NDArray[np.float64]:
    """Degrees Fahrenheit forecast for each hour of the part but the first, float64 `[time - 1]`."""
    x = torch.from_numpy(features(part, scale)[None, :-1])
    with torch.inference_mode():
        return scale.degrees(model(x)[0, :, 0].numpy())


def baselines(part: Series) -> dict[str, npt.NDArray[np.float64]]:
    """Forecasts that need no network, for the hours that count, float64 `[time - 1 - WARM_UP]`."""
    past = part.temperatures[:-1]
    now, yesterday = past[WARM_UP:], past[1 : len(past) - WARM_UP + 1]
    return {
        "persistence": now,
        "same hour yesterday": yesterday,
        "yesterday's change": now + yesterday - past[: len(past) - WARM_UP],
    }


def rmse(forecasts: npt.NDArray[np.float64], part: Series) -> float:
    """Root mean squared error over the hours that count, in degrees Fahrenheit.

    Args:
        forecasts: for each hour of the part but the first, or for those that count.
        part: the truth.
    """
    truth = part.temperatures[1 + WARM_UP :]
    return float(np.sqrt(np.mean((forecasts[-len(truth) :] - truth) ** 2)))


def _descend(
    model: Forecaster, optimizer: torch.optim.Optimizer, x: torch.Tensor, target: torch.Tensor
) -> None:
    optimizer.zero_grad()
    loss(model, x, target).backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

"""Forecast the next hour's temperature with a small recurrent network, in plain PyTorch."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rnnx.recipes.forecast_data import (
    DAY,
    FEATURES,
    Series,
    Split,
    features,
    load,
    naive_forecasts,
    rmse,
)
from rnnx.recipes.recipe import (
    Metric,
    Recipe,
    Run,
    Tell,
    best_device,
    descend,
    in_torch,
    recurrent,
    streamed,
)
from rnnx_runtime.files import replacing

_BATCH = 64
_LEARNING_RATE = 0.003
_UNIT = 0.1  # °F, to which the series is rounded; what is left to learn is of that size


class Forecaster(nn.Module):
    """Reads one hour after the other and forecasts the temperature of the next.

    A convolution over a day and an hour says what changed at this time yesterday, which is added to
    the present temperature, and how the last change differs from yesterday's, which the recurrent
    layer reads. Its first weights say exactly that, and the head's are zero: training begins at the
    best forecast that needs no network.

    Args:
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        hidden_size: units of the recurrent layer.

    Raises:
        InputError: there is no such cell.
    """

    def __init__(self, cell: str = "gru", hidden_size: int = 64) -> None:
        super().__init__()
        self.day = nn.Conv1d(1, 2, 1 + DAY, bias=False)
        self.recurrent = recurrent(cell, len(FEATURES) - 1, hidden_size)
        self.head = nn.Linear(hidden_size, 1)
        between = [0.0] * (DAY - 2)
        yesterday, difference = [0.0, 1.0, *between, 0.0], [-1.0, 0.0, *between, 1.0]
        self.day.weight.data = torch.tensor([[yesterday], [difference]])
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Forecast whole sequences.

        Args:
            x: float32 `[batch, time, 6]`, as `features` makes it.

        Returns:
            For each hour the next hour's temperature, °F, float32 `[batch, time, 1]`.
        """
        temperature, change, when = torch.split(x, [1, 1, len(FEATURES) - 2], dim=2)
        changes = nn.functional.pad(change.mT / _UNIT, (DAY, 0))  # none before the first hour
        yesterday, difference = self.day(changes).mT.split(1, dim=2)
        hidden, _ = self.recurrent(torch.cat([difference, when], dim=2))
        forecasts: torch.Tensor = temperature + _UNIT * (yesterday + self.head(hidden))
        return forecasts


def train(
    data: Split,
    *,
    cell: str = "gru",
    full: bool = False,
    seed: int = 0,
    tell: Tell = lambda message: None,
    epochs: int = 8,
) -> Forecaster:
    """Train, ever more slowly; the weights of the epoch that did best on the validation part.

    Args:
        data: the split series; the test part is not looked at.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        full: twice the units; more epochs would only learn the training part by heart.
        seed: of the first weights and the order of the windows.
        tell: told after each epoch of the validation part's RMSE.
        epochs: passes over the training part.
    """
    torch.manual_seed(seed)
    device = best_device()
    model = Forecaster(cell, hidden_size=128 if full else 64).to(device)
    windows = TensorDataset(*training_windows(data))
    batches = DataLoader(windows, batch_size=_BATCH, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    best, weights = float("inf"), model.state_dict()
    for epoch in range(1, epochs + 1):
        for x, target in batches:
            descend(model, optimizer, loss(model, x.to(device), target.to(device)))
        schedule.step()
        error = rmse(forecast(in_torch(model), data.validation), data.validation)
        tell(f"epoch {epoch} of {epochs}: validation RMSE {error:.3f} °F")
        if error < best:
            best, weights = error, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model.cpu().eval()


def training_windows(data: Split) -> tuple[torch.Tensor, torch.Tensor]:
    """Every two days of the training part, and for each of their hours the next temperature.

    Returns:
        Inputs `[windows, 48, 6]` and targets `[windows, 48, 1]`, float32.
    """
    x = torch.from_numpy(features(data.train))
    windows = x.unfold(0, 2 * DAY + 1, 1).transpose(1, 2)
    return windows[:, :-1], windows[:, 1:, :1]


def loss(model: Forecaster, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the forecasts that count, in units of what is left to learn."""
    return nn.functional.mse_loss(model(x)[:, DAY:] / _UNIT, target[:, DAY:] / _UNIT)


def forecast(run: Run, part: Series) -> npt.NDArray[np.float64]:
    """Degrees Fahrenheit forecast for each hour of the part but the first, float64 `[time - 1]`."""
    forecasts: npt.NDArray[np.float64] = run(features(part[:-1])[None])[0, :, 0].astype(np.float64)
    return forecasts


def score(run: Run, data: Split) -> float:
    """RMSE of a form of the network over the test part, in degrees Fahrenheit."""
    return rmse(forecast(run, data.test), data.test)


def baselines(data: Split) -> dict[str, float]:
    """RMSE over the test part of the forecasts that need no network, in degrees Fahrenheit."""
    return {name: rmse(found, data.test) for name, found in naive_forecasts(data.test).items()}


def calibration(data: Split) -> list[npt.NDArray[np.float32]]:
    """The validation part, float32 `[1, time, 6]`."""
    return [features(data.validation)[None]]


def example(data: Split) -> tuple[torch.Tensor]:
    """A day, float32 `[1, 24, 6]`."""
    return (torch.from_numpy(calibration(data)[0][:, :DAY]),)


def show(data: Split, artifact: str) -> dict[str, str]:
    """Write the held-out hours as CSV, to stream, and a picture of what is forecast for them."""
    from rnnx.recipes.forecast_picture import draw

    inputs, picture = (Path(artifact).with_name(name) for name in ("heldout.csv", "forecast.png"))
    forecasts = forecast(streamed(artifact), data.test)
    scores = {"forecast": rmse(forecasts, data.test), **baselines(data)}
    with replacing(inputs) as beside:
        # nine digits are enough to get each float32 back
        hours = features(data.test[:-1])
        np.savetxt(beside, hours, "%.9g", delimiter=",", header=",".join(FEATURES), comments="")
    draw(picture, data.test, forecasts, scores)
    return {"held-out hours": str(inputs), "picture": str(picture)}


RECIPE = Recipe(
    name="forecast",
    title="forecast Seattle's temperature in the next hour",
    metric=Metric("RMSE", "°F", higher_is_better=False),
    packages=("vega-datasets",),
    load=load,
    train=train,
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
    show=show,
)

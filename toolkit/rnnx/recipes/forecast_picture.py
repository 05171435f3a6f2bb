"""The forecasting recipe's picture: some days of truth and forecast, and what each misses by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnx.picture_file import save
from rnnx.recipes.forecast_data import DAY, Series, naive_forecasts

_SHOWN = 5 * 24  # hours
_COLORS = {"truth": "0.6", "forecast": "tab:blue", "yesterday's change": "tab:orange"}


def draw(
    path: Path, part: Series, forecasts: npt.NDArray[np.float64], scores: Mapping[str, float]
) -> None:
    """Draw the first five days that count, as PNG.

    Args:
        path: the file to write.
        part: the truth.
        forecasts: degrees Fahrenheit for each hour of the part but the first.
        scores: RMSE in degrees Fahrenheit by name, for the caption.
    """
    shown = slice(1 + DAY, 1 + DAY + _SHOWN)
    truth = part[shown]
    lines = {
        "forecast": forecasts[DAY:][:_SHOWN],
        "yesterday's change": naive_forecasts(part)["yesterday's change"][:_SHOWN],
    }
    figure = Figure(figsize=(9, 6), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    _draw_temperatures(above, truth, lines["forecast"])
    _draw_errors(below, truth, lines)
    figure.supxlabel(_caption(scores), fontsize=9)
    save(figure, path)


def _draw_temperatures(axes: Axes, truth: Series, forecasts: npt.NDArray[np.float64]) -> None:
    axes.set_title("Seattle, first held-out days: each hour forecast from the hours before it")
    axes.plot(truth.times, truth.temperatures, color=_COLORS["truth"], linewidth=5, label="truth")
    axes.plot(truth.times, forecasts, color=_COLORS["forecast"], label="forecast (int8, streamed)")
    axes.set_ylabel("temperature (°F)")
    axes.margins(y=0.2)  # room for the legend
    axes.legend(loc="upper right", ncols=2)


def _draw_errors(axes: Axes, truth: Series, lines: Mapping[str, npt.NDArray[np.float64]]) -> None:
    for name, values in lines.items():
        axes.plot(truth.times, values - truth.temperatures, color=_COLORS[name], label=name)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_ylabel("error (°F)")
    axes.margins(y=0.2)  # room for the legend
    axes.legend(loc="upper right", ncols=2)


def _caption(scores: Mapping[str, float]) -> str:
    listed = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    return f"RMSE over the whole held-out part, in °F\n{listed}"

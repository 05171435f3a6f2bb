"""`rnnx demo state`: what the forecaster that comes with rnnx carries from hour to hour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from rnnx.picture_file import save
from rnnx.recipes.recipe import Tell
from rnnx.recipes.shipped import FORECASTER, HOURS
from rnnx_runtime import Stream

Numbers = npt.NDArray[np.float32]


def run(directory: Path, *, seed: int, tell: Tell) -> Path:
    """Draw `state.png`; nothing here is random."""
    tell("three days are read, hour by hour")
    hours = np.loadtxt(HOURS, np.float32, delimiter=",", skiprows=1)
    path = directory / "state.png"
    draw(path, hours[:, 0], carried(Stream(FORECASTER), hours))
    return path


def carried(stream: Stream, hours: Numbers) -> Numbers:
    """The recurrent layer's state after each of the hours `[time, features]`: `[time, units]`."""
    name = next(state.name for state in stream.model.contract.states if state.kind == "h")
    states = []
    for hour in hours:
        stream.feed(hour[None, None])
        states.append(stream.states()[name][0])
    return np.stack(states)


def draw(path: Path, temperatures: Numbers, states: Numbers) -> None:
    """Draw the temperatures above the state's units, those that peak at like hours together."""
    figure = Figure(figsize=(9, 5), dpi=80, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    above.plot(temperatures, color="0.4")
    above.set_ylabel("°F")
    ordered = states[:, states[-24:].argmax(0).argsort()]
    image = below.imshow(ordered.T, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    below.set_xlabel("hours read")
    below.set_ylabel("units of the state")
    figure.colorbar(image, ax=below)
    save(figure, path)

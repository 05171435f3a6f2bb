"""The whole way once: train, export, check, quantize, then stream what the network never saw."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import rnnx
from rnnx.bench import measure
from rnnx.recipes.data import FEATURES, Split, features, seattle_temperatures, split
from rnnx.recipes.forecast import WARM_UP, Forecaster, baselines, forecast, rmse, train
from rnnx.recipes.picture import draw
from rnnx_runtime.files import replacing

Forecasts = npt.NDArray[np.float64]

WEIGHTS, HELDOUT, PICTURE = "forecast.pt", "heldout.csv", "forecast.png"
ARTIFACT, QUANTIZED = "forecast.onnx", "forecast-int8.onnx"


@dataclass(frozen=True, slots=True)
class Row:
    """How one way of forecasting did on the held-out part.

    Attributes:
        name: the way.
        rmse: root mean squared error of its forecasts, in degrees Fahrenheit.
        bytes: size of its file; None for a baseline, as are the next two.
        max_error: largest difference from torch's forecasts, in degrees Fahrenheit.
        step_us: median time of one step, one hour of one sequence, in microseconds.
    """

    name: str
    rmse: float
    bytes: int | None = None
    max_error: float | None = None
    step_us: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What the demo found.

    Attributes:
        passed: whether the artifact equals the torch model.
        heldout_hours: forecasts each row was scored on.
        rows: torch, the artifact, the quantized artifact, then the baselines.
        files: what was written.
    """

    passed: bool
    heldout_hours: int
    rows: tuple[Row, ...]
    files: tuple[str, ...]


def run(
    directory: str | os.PathLike[str],
    *,
    epochs: int = 8,
    on_progress: Callable[[str], object] = lambda message: None,
) -> Result:
    """Train a forecaster, take it all the way to a small streaming artifact, and score each form.

    Args:
        directory: where the files go; made if it is not there.
        epochs: at most so many passes over the training part.
        on_progress: told in a sentence what happens next.

    Raises:
        MissingExtraError: the package with the data is not installed.
    """
    data = split(seattle_temperatures())
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    on_progress(f"training on {len(data.train)} hours; {len(data.test)} are held out")
    model = train(data, epochs=epochs, on_epoch=_teller(epochs, on_progress))
    write_torch(folder, model, data)
    on_progress("exporting, checking and quantizing")
    report = write_artifacts(folder, model, data)
    on_progress("streaming the held-out hours one at a time, and timing steps")
    forecasts = {
        "torch": forecast(model, data.test, data.scale),
        "ONNX": stream(folder / ARTIFACT, data),
        "int8": stream(folder / QUANTIZED, data),
    }
    rows = score(folder, model, data, forecasts)
    with replacing(folder / PICTURE) as beside:
        draw(beside, data.test, forecasts["int8"], {row.name: row.rmse for row in rows})
    return Result(report.passed, len(data.test) - 1 - WARM_UP, rows, _files(folder))


def heldout_inputs(data: Split) -> npt.NDArray[np.float32]:
    """The test part's hours whose next hour is known, float32 `[time, 5]`."""
    return features(data.test[:-1], data.scale)


def write_torch(folder: Path, model: Forecaster, data: Split) -> None:
    """Write the weights as a state dict, and the held-out inputs as CSV with a header."""
    with replacing(folder / WEIGHTS) as beside:
        torch.save(model.state_dict(), beside)
    with replacing(folder / HELDOUT) as beside:
        header = ",".join(FEATURES)
        # nine digits are enough to get each float32 back
        np.savetxt(beside, heldout_inputs(data), "%.9g", delimiter=",", header=header, comments="")


def write_artifacts(folder: Path, model: Forecaster, data: Split) -> rnnx.Report:
    """Export, check against torch, and quantize; what the check found."""
    example = features(data.validation, data.scale)[None]
    args = (torch.from_numpy(example[:, :WARM_UP]),)
    rnnx.export(model, args, folder / ARTIFACT, streaming=True)
    report = rnnx.check(folder / ARTIFACT, model)
    rnnx.quantize(folder / ARTIFACT, folder / QUANTIZED, level="int8", calibration=example)
    return report


def stream(path: Path, data: Split) -> Forecasts:
    """What the artifact forecasts when the test part is fed hour by hour, in degrees Fahrenheit."""
    steps = rnnx.Stream(path)
    outputs = [steps.feed(hour[None, None]) for hour in heldout_inputs(data)]
    return data.scale.degrees(np.array(outputs, np.float32).ravel())


def score(
    folder: Path, model: Forecaster, data: Split, forecasts: dict[str, Forecasts]
) -> tuple[Row, ...]:
    """One row for each form of the network, then one for each baseline."""
    files = {"torch": WEIGHTS, "ONNX": ARTIFACT, "int8": QUANTIZED}
    step_us = time_steps(folder, model, data)
    networks = [
        Row(
            name,
            rmse(forecasts[name], data.test),
            bytes=(folder / file).stat().st_size,
            max_error=float(np.abs(forecasts[name] - forecasts["torch"]).max()),
            step_us=step_us[name],
        )
        for name, file in files.items()
    ]
    naive = [Row(name, rmse(values, data.test)) for name, values in baselines(data.test).items()]
    return (*networks, *naive)


def time_steps(folder: Path, model: Forecaster, data: Split) -> dict[str, float]:
    """The median time of one step of each form, in microseconds, measured in turn."""
    hour = heldout_inputs(data)[None, :1]
    x = torch.from_numpy(hour)
    artifact, quantized = (rnnx.Stream(folder / name) for name in (ARTIFACT, QUANTIZED))
    with torch.inference_mode():
        _, state = model.step(x)
        timings = measure(
            {
                "torch": lambda: model.step(x, state),
                "ONNX": lambda: artifact.feed(hour),
                "int8": lambda: quantized.feed(hour),
            }
        )
    return {name: timing.median for name, timing in timings.items()}


def _teller(epochs: int, on_progress: Callable[[str], object]) -> Callable[[int, float], object]:
    def tell(epoch: int, score: float) -> None:
        on_progress(f"epoch {epoch} of {epochs} at most: validation RMSE {score:.3f} °F")

    return tell


def _files(folder: Path) -> tuple[str, ...]:
    return tuple(str(folder / name) for name in (WEIGHTS, HELDOUT, ARTIFACT, QUANTIZED, PICTURE))

"""The data of the forecasting recipe: an hourly series, its features, and a split by time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnnx.recipes.packages import locate

FEATURES = ("temperature", "change", "hour_sin", "hour_cos", "day_sin", "day_cos")

DAY = 24  # hours; a forecast counts once a day has been read

# Where the validation and the test part begin, as fractions of the series.
_VALIDATION, _TEST = 0.7, 0.85


@dataclass(frozen=True, slots=True)
class Series:
    """Temperatures by the hour.

    Attributes:
        times: datetime64[m] `[time]`.
        temperatures: degrees Fahrenheit, float64 `[time]`.
    """

    times: npt.NDArray[np.datetime64]
    temperatures: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, hours: slice) -> Series:
        return Series(self.times[hours], self.temperatures[hours])


@dataclass(frozen=True, slots=True)
class Split:
    """The series in three parts, each after the one before."""

    train: Series
    validation: Series
    test: Series


def seattle_temperatures() -> Series:
    """Seattle's temperature in each hour of 2010, as vega-datasets carries it (NOAA).

    The values change so little from one day to the next that they look like averages over many
    years rather than one year's weather. The hour lost to daylight saving time is missing.

    Raises:
        DataError: vega-datasets is not here.
    """
    path = locate("vega-datasets", "vega_datasets/_data/seattle-temps.csv")
    rows = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.str_)
    times = np.char.replace(rows[:, 0], "/", "-").astype("datetime64[m]")
    return Series(times, rows[:, 1].astype(np.float64))


def load() -> Split:
    """Seattle's temperatures, split by time."""
    return split(seattle_temperatures())


def split(series: Series) -> Split:
    """The first 70 % to train on, 15 % to stop by, the last 15 % held out."""
    validation, test = (round(len(series) * fraction) for fraction in (_VALIDATION, _TEST))
    return Split(series[:validation], series[validation:test], series[test:])


def features(series: Series) -> npt.NDArray[np.float32]:
    """The network's input, float32 `[time, 6]`, columns as in `FEATURES`.

    Temperature and its change since the hour before (the first hour's is 0) are in degrees
    Fahrenheit; the hours of a day and the days of a year go round a circle.
    """
    times, temperatures = series.times, series.temperatures
    hour = (times - times.astype("datetime64[D]")) / np.timedelta64(1, "D") * 2 * np.pi
    day = (times - times.astype("datetime64[Y]")) / np.timedelta64(365, "D") * 2 * np.pi
    columns = [
        temperatures,
        np.diff(temperatures, prepend=temperatures[:1]),
        np.sin(hour),
        np.cos(hour),
        np.sin(day),
        np.cos(day),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def naive_forecasts(part: Series) -> dict[str, npt.NDArray[np.float64]]:
    """Forecasts that need no network, for the hours that count, float64 `[time - 1 - DAY]`."""
    past = part.temperatures[:-1]
    now, yesterday = past[DAY:], past[1 : len(past) - DAY + 1]
    return {
        "persistence": now,
        "same hour yesterday": yesterday,
        "yesterday's change": now + yesterday - past[: len(past) - DAY],
    }


def rmse(forecasts: npt.NDArray[np.float64], part: Series) -> float:
    """Root mean squared error over the hours that count, in degrees Fahrenheit.

    Args:
        forecasts: for each hour of the part but the first, or for those that count.
        part: the truth.
    """
    truth = part.temperatures[1 + DAY :]
    return float(np.sqrt(np.mean((forecasts[-len(truth) :] - truth) ** 2)))

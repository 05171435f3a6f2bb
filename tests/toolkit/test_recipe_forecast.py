"""The forecasting recipe: a split that does not leak, honest scores, training that learns."""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnnx.recipes.forecast import (
    Forecaster,
    baselines,
    forecast,
    load,
    loss,
    score,
    train,
    training_windows,
)
from rnnx.recipes.forecast_data import (
    DAY,
    Series,
    Split,
    features,
    naive_forecasts,
    rmse,
    seattle_temperatures,
    split,
)
from rnnx.recipes.recipe import in_torch
from rnnx_runtime.errors import InputError

SERIES = seattle_temperatures()
CELLS = ("rnn", "gru", "lstm")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More cost time at this size, above all where other tests run beside."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def small() -> Split:
    """A month or so: enough to learn something in seconds."""
    return split(SERIES[:700])


def with_other_future(series: Series) -> Series:
    """The series with all but its training part replaced by noise."""
    hours = len(split(series).train)
    noise = np.random.default_rng(0).normal(200, 50, len(series) - hours)
    return Series(series.times, np.concatenate([series.temperatures[:hours], noise]))


def test_hours_follow_each_other_and_temperatures_are_seattles() -> None:
    gaps = np.diff(SERIES.times) / np.timedelta64(1, "h")
    assert gaps.min() == 1
    assert np.count_nonzero(gaps != 1) <= 1  # the hour lost to daylight saving time
    assert 30 < SERIES.temperatures.min() < SERIES.temperatures.max() < 90


@given(st.integers(200, len(SERIES)))
def test_the_parts_are_the_series_in_order(hours: int) -> None:
    series = SERIES[:hours]
    parts = split(series)
    assert parts.train.times[-1] < parts.validation.times[0]
    assert parts.validation.times[-1] < parts.test.times[0]
    joined = np.concatenate([p.times for p in (parts.train, parts.validation, parts.test)])
    np.testing.assert_array_equal(joined, series.times)


def test_nothing_of_the_future_reaches_training() -> None:
    now, other = (training_windows(split(s)) for s in (SERIES, with_other_future(SERIES)))
    for mine, theirs in zip(now, other, strict=True):
        assert torch.equal(mine, theirs)


def test_weights_after_an_epoch_do_not_depend_on_the_future(small: Split) -> None:
    other = split(with_other_future(SERIES[:700]))
    mine, theirs = (train(data, epochs=1).state_dict() for data in (small, other))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@given(st.integers(1, len(SERIES) - 1))
def test_features_are_degrees_and_the_hour_and_the_day_on_circles(hour: int) -> None:
    when: datetime = SERIES.times[hour].item()
    day = 2 * math.pi * (when - datetime(when.year, 1, 1)).total_seconds() / (365 * 86400)
    clock = 2 * math.pi * (when.hour * 60 + when.minute) / 1440
    before, now = SERIES.temperatures[hour - 1 : hour + 1].tolist()
    circles = [math.sin(clock), math.cos(clock), math.sin(day), math.cos(day)]
    found = features(SERIES[hour - 1 : hour + 1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[1], [now, now - before, *circles], rtol=1e-6, atol=1e-6)
    assert found[0, 1] == 0  # what is not known yet did not change


def test_a_window_asks_for_the_next_hours_temperature(small: Split) -> None:
    x, target = training_windows(small)
    assert x.shape[1:] == (2 * DAY, 6)
    assert torch.equal(x[:, 1:, :1], target[:, :-1])
    assert torch.equal(x[1:, -1, :1], target[:-1, -1])


def test_only_forecasts_after_the_first_day_are_trained_on(small: Split) -> None:
    x, target = (tensor[:4].clone() for tensor in training_windows(small))
    model = Forecaster(hidden_size=4)
    before = loss(model, x, target)
    target[:, :DAY] += 1
    assert torch.equal(loss(model, x, target), before)
    target[:, DAY] += 1
    assert not torch.equal(loss(model, x, target), before)


def test_baselines_score_as_counted_by_hand() -> None:
    part = split(SERIES).test
    degrees = part.temperatures.tolist()
    forecasts = {
        "persistence": lambda hour: degrees[hour - 1],
        "same hour yesterday": lambda hour: degrees[hour - 24],
        "yesterday's change": lambda hour: (
            degrees[hour - 1] + degrees[hour - 24] - degrees[hour - 25]
        ),
    }
    hours = range(DAY + 1, len(part))
    found = naive_forecasts(part)
    assert found.keys() == forecasts.keys()
    for name, forecast_of in forecasts.items():
        squares = [(forecast_of(hour) - degrees[hour]) ** 2 for hour in hours]
        by_hand = math.sqrt(sum(squares) / len(squares))
        assert rmse(found[name], part) == baselines(load())[name] == pytest.approx(by_hand)


def test_a_perfect_forecast_scores_zero_and_one_degree_off_scores_one() -> None:
    part = split(SERIES).test
    truth = part.temperatures[1:]
    assert rmse(truth, part) == 0
    assert rmse(truth + 1, part) == pytest.approx(1)


def test_a_form_that_repeats_the_present_hour_scores_as_persistence() -> None:
    data = load()
    found = score(lambda x: x[..., :1], data)
    assert found == pytest.approx(baselines(data)["persistence"], rel=1e-5)


@given(st.sampled_from(CELLS), st.integers(0, 40))
def test_a_forecast_sees_nothing_that_comes_after_it(cell: str, frame: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 41, 6)
    x[:, frame] = torch.nan
    with torch.no_grad():
        y = Forecaster(cell, hidden_size=4)(x)
    assert y[:, :frame].isfinite().all()
    assert y[:, frame:].isnan().all()


@pytest.mark.parametrize("cell", CELLS)
def test_training_begins_at_the_best_forecast_without_a_network(small: Split, cell: str) -> None:
    found = forecast(in_torch(Forecaster(cell)), small.test)
    np.testing.assert_allclose(
        found[DAY:], naive_forecasts(small.test)["yesterday's change"], atol=1e-4
    )


def test_on_the_first_day_nothing_changed_the_day_before(small: Split) -> None:
    found = forecast(in_torch(Forecaster()), small.test)
    np.testing.assert_allclose(found[: DAY - 1], small.test.temperatures[: DAY - 1], atol=1e-4)


def _scores(told: list[str]) -> list[float]:
    """What training told of the validation part after each epoch."""
    return [float(message.rpartition("RMSE ")[2].removesuffix(" °F")) for message in told]


@pytest.mark.parametrize("cell", CELLS)
def test_training_learns_and_keeps_the_best_weights(small: Split, cell: str) -> None:
    torch.manual_seed(0)
    x, target = training_windows(small)
    untrained = loss(Forecaster(cell), x, target).item()  # that of the best forecast without one
    told: list[str] = []
    model = train(small, cell=cell, epochs=6, tell=told.append)
    assert loss(model, x, target).item() < 0.95 * untrained
    assert len(told) == 6
    found = rmse(forecast(in_torch(model), small.validation), small.validation)
    assert found == pytest.approx(min(_scores(told)), abs=5e-4)


def test_weights_that_did_worse_on_the_validation_part_are_not_kept(small: Split) -> None:
    # Training learns to take back what was rounding; here each change goes on as it went.
    smooth = np.random.default_rng(0).normal(size=len(small.validation)).cumsum().cumsum()
    misleading = Split(small.train, Series(small.validation.times, smooth), small.test)
    told: list[str] = []
    model = train(misleading, epochs=3, tell=told.append)
    scores = _scores(told)
    assert scores[0] < scores[1]
    assert scores[0] < scores[2]
    found = rmse(forecast(in_torch(model), misleading.validation), misleading.validation)
    assert found == pytest.approx(scores[0], abs=5e-4)


def test_an_unknown_cell_is_refused() -> None:
    with pytest.raises(InputError, match="'gur'") as raised:
        Forecaster("gur")
    assert "gru" in str(raised.value.hint)

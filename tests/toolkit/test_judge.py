"""What is near enough, where rounding is known: by arrays whose errors are made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx.parity.gate import Gate
from rnnx.parity.judge import Pair, floors_of, judge
from rnnx.parity.report import Finding

GATE = Gate(rtol=0.0, atol=1e-5)


def judged(actual: np.ndarray, torchs: np.ndarray, exact: np.ndarray) -> Finding | None:
    """Of `[time]`: the artifact, torch's float32, its float64."""
    floors = floors_of(torchs, exact, 0)
    return judge(GATE, Pair(actual, torchs, exact, floors, 0), "probe", "y", {})


def wave(frames: int) -> np.ndarray:
    return np.sin(np.arange(frames) / 7.0)


@given(off=st.floats(0.0, 1e-2), seed=st.integers(0, 2**32 - 1))
def test_a_fault_in_a_network_that_forgets_is_not_excused(off: float, seed: int) -> None:
    """Where torch rounds at float32's resolution, the tolerance is what is asked, and no more."""
    exact = wave(200)
    rounded = exact.astype(np.float32)
    actual = rounded + np.float32(off)
    found = judged(actual, rounded, exact)
    assert found is not None
    assert found.run == {}
    assert found.passed is (off < 1.2e-5) or 1e-5 < off < 1.5e-5


def growing(rate: float, frames: int, ahead: int = 0) -> np.ndarray:
    """An error that starts at float32's resolution and grows in every frame."""
    return 1e-7 * np.exp(rate * (np.arange(frames) + ahead))


@given(rate=st.floats(0.02, 0.5), lead=st.floats(0.0, 0.4))
def test_errors_that_grow_may_be_ahead_of_torchs(rate: float, lead: float) -> None:
    """As far as torch is after so many frames, the artifact is after fewer."""
    frames = int(14 / rate)
    exact = wave(frames)
    torchs = (exact + growing(rate, frames)).astype(np.float32)
    actual = (exact + 1e-7 * np.exp(rate * (1 + lead) * np.arange(frames))).astype(np.float32)
    found = judged(actual, torchs, exact)
    assert found is not None
    assert found.passed
    assert 0 < found.run["judged"] < frames


def test_a_fault_in_a_network_whose_errors_grow_is_seen_before_they_do() -> None:
    exact = wave(200)
    torchs = (exact + growing(0.1, 200)).astype(np.float32)
    found = judged(torchs + np.float32(0.01), torchs, exact)
    assert found is not None
    assert not found.passed


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_frames_from_an_overflow_on_are_not_judged(broken: float) -> None:
    exact = wave(50)
    torchs = exact.astype(np.float32)
    actual = torchs.copy()
    torchs[20:], actual[20:] = broken, 0.0
    found = judged(actual, torchs, exact)
    assert found is not None
    assert found.passed
    assert found.run == {"judged": 20}


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_what_only_the_artifact_breaks_fails(broken: float) -> None:
    exact = wave(50)
    torchs = exact.astype(np.float32)
    actual = torchs.copy()
    actual[20] = broken
    found = judged(actual, torchs, exact)
    assert found is not None
    assert not found.passed
    assert found.index == (20,)


def test_infinity_that_both_have_is_equal() -> None:
    """Scores of what is impossible are minus infinity."""
    exact = wave(50)
    exact[3] = -np.inf
    torchs = exact.astype(np.float32)
    found = judged(torchs, torchs, exact)
    assert found is not None
    assert found.passed
    assert found.run == {}


def test_a_sum_over_many_steps_may_round_as_such() -> None:
    """Torch's own cumsum adds in float64, so that its float32 is too good a witness."""
    steps = np.random.default_rng(0).standard_normal(10_000)
    exact = steps.cumsum()
    summed = np.cumsum(steps.astype(np.float32), dtype=np.float32)
    found = judged(summed, exact.astype(np.float32), exact)
    assert found is not None
    assert found.passed
    forgets = judged(summed * np.float32(0.999), exact.astype(np.float32), exact)
    assert forgets is not None
    assert not forgets.passed

"""Judges one output against the reference: by a tolerance, or by quality where it is quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.parity.gate import Gate
from rnnx.parity.report import Finding
from rnnx_exporters.compare import compare

Array = npt.NDArray[Any]

# How many times as far from float64 as torch's float32 an artifact may be: other orders of
# summation are as good as torch's, and no better.
_FLOORS = 8.0
# Relative to the size of an output: where float32 may be farther off (`_reach`), nothing can be
# judged. Recurrent weights that expand get there within hundreds of steps.
_LARGEST_REACH = 1e-2
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class Pair:
    """An output and what it is held against.

    Attributes:
        actual: the artifact's.
        wanted: the reference's, of one dtype with it.
        exact: the reference's in float64, where it is held against that.
        floors: how far the reference's float32 is from its float64 up to each frame (`floors_of`),
            where that is known.
        time_axis: the axis that counts frames, or None.
    """

    actual: Array
    wanted: Array
    exact: Array | None
    floors: Array | None
    time_axis: int | None


def judge(gate: Gate, pair: Pair, probe: str, output: str, run: dict[str, int]) -> Finding | None:
    """What there is to tell of a pair; None where the reference itself is too far off to judge.

    Judged are the frames before torch's float32 leaves its float64; where these are not all, the
    finding's run tells how many.
    """
    frames = _judged_frames(pair)
    if frames == 0:
        return None
    if frames is not None:
        pair, run = _first(pair, frames), run | {"judged": frames}
    floors = pair.floors
    atol, wanted = gate.atol_of(output), pair.wanted if pair.exact is None else pair.exact
    slack = 0.0 if floors is None else _slack(floors, wanted, pair.time_axis)
    found = compare(
        pair.actual, pair.wanted, rtol=gate.rtol, atol=atol, exact=pair.exact, slack=slack
    )
    snr_db, agreement = quality(pair.actual, wanted)
    near = found.passed if gate.snr_db is None else _good(found.reason, snr_db, agreement, gate)
    step = None if found.index is None or pair.time_axis is None else found.index[pair.time_axis]
    return Finding(
        probe=probe,
        output=output,
        run=run,
        passed=near,
        max_abs=found.max_abs,
        required_atol=found.required_atol,
        rtol=gate.rtol,
        atol=atol,
        index=found.index,
        time_step=step,
        reason=found.reason,
        noise_floor=None if floors is None else float(floors[-1]),
        floor_ratio=None if floors is None else _ratio(pair.actual, wanted, float(floors[-1])),
        snr_db=snr_db,
        agreement=agreement,
        min_snr_db=gate.snr_db,
        min_agreement=gate.agreement,
    )


def allowed(gate: Gate, pair: Pair, output: str) -> Array:
    """How far each element may be; under a gate of quality, were the error the same everywhere."""
    wanted = pair.wanted if pair.exact is None else pair.exact
    if gate.snr_db is not None:
        return np.full(wanted.shape, _rms(wanted) * 10 ** (-gate.snr_db / 20))
    floors = pair.floors
    slack = 0.0 if floors is None else _slack(floors, wanted, pair.time_axis)
    limits: Array = gate.atol_of(output) + gate.rtol * np.abs(wanted) + slack
    return limits


def floors_of(wanted: Array, exact: Array | None, time_axis: int | None) -> Array | None:
    """How far float32 has been from float64 up to each frame, `[frames]`; `[1]` without frames.

    From the first NaN or overflow on it is infinite: onnxruntime's GRU and LSTM go on with numbers.
    """
    if exact is None or not exact.size or wanted.shape != exact.shape:
        return None
    with np.errstate(invalid="ignore"):  # infinity less infinity
        distance = np.where(wanted == exact, 0.0, np.abs(wanted.astype(np.float64) - exact))
    return _running(np.where(np.isnan(distance), np.inf, distance), time_axis)


def _running(array: Array, time_axis: int | None) -> Array:
    """The largest up to each frame, `[frames]`; `[1]` without frames."""
    if time_axis is None:
        return np.array([array.max()])
    others = tuple(axis for axis in range(array.ndim) if axis != time_axis)
    largest: Array = np.maximum.accumulate(array.max(others))
    return largest


def _sizes(array: Array, time_axis: int | None) -> Array:
    """The largest finite magnitude up to each frame, as `_running` gives it."""
    return _running(np.where(np.isfinite(array), np.abs(array), 0.0), time_axis)


def _judged_frames(pair: Pair) -> int | None:
    """How many frames can be judged; None where all can."""
    if pair.floors is None or pair.actual.shape != pair.wanted.shape:
        return None
    sizes = _sizes(pair.wanted if pair.exact is None else pair.exact, pair.time_axis)
    judged = _reach(pair.floors, sizes) <= _LARGEST_REACH * np.maximum(1.0, sizes)
    return None if judged.all() else int(judged.argmin())


def _reach(floors: Array, sizes: Array) -> Array:
    """How far float32 would be off with half as many frames more.

    Where errors grow from step to step, another order of summation may be some steps ahead of
    torch's: from float32's resolution a floor grew by a power of the steps.
    """
    grown = floors / (_EPS * np.maximum(1.0, sizes))
    reach: Array = floors * np.sqrt(np.maximum(1.0, grown))
    return reach


def _first(pair: Pair, frames: int) -> Pair:
    """The first frames."""
    axis = pair.time_axis
    if axis is None or pair.floors is None:
        return pair
    cut = (slice(None),) * axis + (slice(frames),)
    exact = None if pair.exact is None else pair.exact[cut]
    return Pair(pair.actual[cut], pair.wanted[cut], exact, pair.floors[:frames], axis)


def quality(actual: Array, reference: Array) -> tuple[float | None, float | None]:
    """The ratio of the reference to the difference in dB, and how often the largest value agrees.

    None where the arrays are not comparable; no agreement where there is nothing to choose from.
    """
    if actual.shape != reference.shape or not actual.size or actual.dtype.kind != "f":
        return None, None
    if not (np.isfinite(actual).all() and np.isfinite(reference).all()):
        return None, None
    wanted = reference.astype(np.float64)
    noise, signal = np.square(actual - wanted).sum(), np.square(wanted).sum()
    with np.errstate(divide="ignore"):
        snr = float(10 * (np.log10(signal) - np.log10(noise))) if signal or noise else np.inf
    if actual.ndim < 2 or actual.shape[-1] < 2:
        return snr, None
    return snr, float((actual.argmax(-1) == wanted.argmax(-1)).mean())


def _good(reason: str | None, snr: float | None, agreement: float | None, gate: Gate) -> bool:
    if reason is not None or gate.snr_db is None:
        return False
    loud_enough = snr is None or snr >= gate.snr_db  # without a signal there is nothing to lose
    alike = gate.agreement is None or agreement is None or agreement >= gate.agreement
    return loud_enough and alike


def _slack(floors: Array, wanted: Array, time_axis: int | None) -> Array:
    """What is allowed at each frame because float32 itself is no nearer.

    Where torch sums in float64 inside, as `cumsum` does, its floor is none of a sum that goes on
    from call to call; so what rounding comes to in so many steps, one in a random direction after
    the other, is allowed at least.
    """
    sizes = _sizes(wanted, time_axis)
    slack = _FLOORS * _reach(floors, sizes)
    if time_axis is not None:
        steps = np.sqrt(np.arange(1, len(floors) + 1))
        slack = np.maximum(slack, _EPS * steps * sizes)
    return _along(slack, time_axis, wanted.ndim)


def _along(running: Array, axis: int | None, ndim: int) -> Array:
    shape = [1] * ndim
    if axis is not None:
        shape[axis] = len(running)
    return running.reshape(shape)


def _ratio(actual: Array, exact: Array, floor: float) -> float | None:
    if actual.shape != exact.shape:
        return None
    if not (np.isfinite(actual).all() and np.isfinite(exact).all()):
        return None
    distance = np.abs(actual.astype(np.float64) - exact)
    least = _EPS * max(float(np.abs(exact).max()), 1e-30)
    return float(distance.max()) / max(floor, least)


def _rms(array: Array) -> float:
    finite = array[np.isfinite(array)].astype(np.float64)
    return float(np.sqrt(np.square(finite).mean())) if finite.size else 0.0

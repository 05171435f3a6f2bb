"""Silence, very loud input, numbers next to nothing, the largest ids."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rnnx.parity.report import Finding
from rnnx.parity.trial import Array, Arrays, Expected, Trial
from rnnx_runtime.contract import Port

BATCH = 2
FRAMES = 12
# What normal inputs are multiplied by; float32's smallest normal number is 1.2e-38.
SCALES = {"zeros": 0.0, "loud": 1e4, "denormal": 1e-40}


def probe(trial: Trial) -> Iterator[Finding]:
    """Torch's values for such inputs, and no NaN or infinity where torch has a number.

    Of loud floats only the latter is asked: what rounding makes of gates that are about to turn is
    as large as their input. The same of a quantized artifact.
    """
    rng, frames = trial.rng("extremes"), FRAMES * trial.contract.first_chunk
    (batch,) = trial.batches(BATCH)
    feeds = trial.inputs(rng, batch=batch, frames=frames)
    has_floats = any(value.dtype.kind == "f" for value in feeds.values())
    for name, scale in SCALES.items():
        ports = trial.contract.inputs
        extreme = {port.name: _scaled(port, feeds[port.name], scale) for port in ports}
        actual, expected = trial.run(extreme), trial.expected(extreme)
        run = {"batch": batch, "frames": frames, name: 1}
        yield from _hold_finite(trial, actual, expected, run)
        if trial.gate.snr_db is None and not (has_floats and scale > 1):
            yield from trial.judge("extremes", actual, expected, run)


def _scaled(port: Port, value: Array, scale: float) -> Array:
    """The input so loud; of ids, the largest where it is loud, 0 where it is silent."""
    if port.counts_frames:
        return value
    if value.dtype.kind == "f":
        with np.errstate(over="ignore", under="ignore"):  # float16 reaches 65504
            return np.asarray(value * scale, value.dtype)
    return np.full_like(value, (port.num_embeddings or 2) - 1 if scale > 1 else 0)


def _hold_finite(
    trial: Trial, actual: Arrays, expected: Expected, run: dict[str, int]
) -> Iterator[Finding]:
    for name, value in actual.items():
        wanted = expected.values[name]
        alike = value.shape == wanted.shape
        new = bool((~np.isfinite(value) & np.isfinite(wanted)).any()) if alike else True
        reason = "NaN or infinity where torch has a number" if new else None
        yield trial.verdict("extremes", name, run, reason)

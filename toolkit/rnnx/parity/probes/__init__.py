"""The probes, in the order in which they run and are told: one module each.

A probe is a module with `probe(trial)`, which yields findings, and, where it does not fit every
artifact, `unfit(trial)`, which says why.
"""

from __future__ import annotations

from types import ModuleType

from rnnx.parity.probes import (
    batch,
    causality,
    chunked,
    delay,
    determinism,
    extremes,
    horizon,
    liveness,
    loud,
    metric,
    ragged,
    recorded,
    reset,
    sequence,
)

PROBES: dict[str, ModuleType] = {
    "sequence": sequence,
    "chunked": chunked,
    "ragged": ragged,
    "batch": batch,
    "reset": reset,
    "liveness": liveness,
    "horizon": horizon,
    "determinism": determinism,
    "loud": loud,
    "extremes": extremes,
    "causality": causality,
    "delay": delay,
    "recorded": recorded,
    "metric": metric,
}

"""The probes, in the order in which they run and are told: one module each.

A probe is a module with `probe(trial)`, which yields findings, and, where it does not fit every
artifact, `unfit(trial)`, which says why.
"""

from __future__ import annotations

from types import ModuleType

from rnnx.parity.probes import chunked, metric, recorded, sequence

PROBES: dict[str, ModuleType] = {
    "sequence": sequence,
    "chunked": chunked,
    "recorded": recorded,
    "metric": metric,
}

"""Under which conditions a benchmark runs: one core, and the versions, told first."""

from __future__ import annotations

import os
import platform

import numpy as np
import onnxruntime as ort


def on_one_core(*more: str) -> None:
    """Keep this process on one core for good, and tell the conditions."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    tell("one core", *more)


def tell(*more: str) -> None:
    """Print the versions and what else there is to know."""
    versions = (
        f"Python {platform.python_version()}",
        f"numpy {np.__version__}",
        f"onnxruntime {ort.__version__}",
        platform.machine(),
    )
    print(", ".join((*versions, *more)))

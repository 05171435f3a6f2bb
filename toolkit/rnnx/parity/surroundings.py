"""What a check ran on: versions, the CPU, threads."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

_CPUINFO = Path("/proc/cpuinfo")
# Those that change in which order, and with how many bits, a product is summed.
_FEATURES = (
    *("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "sve"),
)


def versions() -> dict[str, str]:
    """Of Python and of the packages that compute."""
    return {
        "python": platform.python_version(),
        "rnnx": version("rnnx"),
        **_torch_version(),
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
    }


def machine(session: ort.InferenceSession) -> dict[str, Any]:
    """The CPU, as far as it tells, and the threads that torch and this session use."""
    told = _cpuinfo()
    flags = (told.get("flags") or told.get("Features") or "").split()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpu": told.get("model name") or platform.processor(),
        "features": [name for name in _FEATURES if name in flags],
        "cores": os.cpu_count(),
        **_torch_threads(),
        "onnxruntime_threads": session.get_session_options().intra_op_num_threads,
    }


def _torch_version() -> dict[str, str]:
    torch = sys.modules.get("torch")  # not loaded to hold one artifact against another
    return {} if torch is None else {"torch": torch.__version__}


def _torch_threads() -> dict[str, int]:
    torch = sys.modules.get("torch")
    return {} if torch is None else {"torch_threads": torch.get_num_threads()}


def _cpuinfo() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    try:
        lines = _CPUINFO.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}

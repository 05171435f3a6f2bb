"""What `import rnnx_runtime` costs beyond numpy and onnxruntime, in fresh processes in turn."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime as ort

from rnnx.bench import one_core
from rnnx.table import render

PROCESSES = 41
IMPORTS = ("numpy, onnxruntime", "numpy, onnxruntime, rnnx_runtime")
PROGRAM = """
import time
begun = time.process_time()
import {}
print(time.process_time() - begun)
"""


def main() -> None:
    print(f"Python {platform.python_version()}, numpy {np.__version__},", end=" ")
    print(f"onnxruntime {ort.__version__}, {platform.machine()}, one core")
    with one_core(), tempfile.TemporaryDirectory() as compiled:
        milliseconds(IMPORTS[1], compiled)  # compiles, as an installation does
        turns = [[milliseconds(name, compiled) for name in IMPORTS] for _ in range(PROCESSES)]
    differences = [more - less for less, more in turns]
    columns = [*zip(*turns, strict=True), differences]
    rows = [
        [name, *(f"{quartile:.1f}" for quartile in statistics.quantiles(column, n=4))]
        for name, column in zip((*IMPORTS, "the difference"), columns, strict=True)
    ]
    print(render(["import, CPU ms", "1st quartile", "median", "3rd quartile"], rows))


def milliseconds(modules: str, compiled: str) -> float:
    """CPU time, which other processes disturb least."""
    command = [sys.executable, "-P", "-c", PROGRAM.format(modules)]
    environment = os.environ | {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    return 1000 * float(done.stdout)


if __name__ == "__main__":
    main()

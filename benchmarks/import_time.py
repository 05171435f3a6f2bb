"""What `import rnnx_runtime` costs behind numpy and onnxruntime, in fresh processes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile

from conditions import tell

from rnnx.bench import one_core
from rnnx.table import render

PROCESSES = 41
# One after the other: a difference between processes would be lost in what differs between them.
IMPORTS = ("numpy", "onnxruntime", "rnnx_runtime")
# CPU time, which other processes disturb least.
PROGRAM = f"""
import json, time
from importlib import import_module
times = [time.process_time()]
for module in {IMPORTS}:
    import_module(module)
    times.append(time.process_time())
print(json.dumps([1000 * (b - a) for a, b in zip(times, times[1:])]))
"""


def main() -> None:
    tell()
    with one_core(), tempfile.TemporaryDirectory() as compiled:
        milliseconds(compiled)  # compiles, as an installation does
        columns = zip(*(milliseconds(compiled) for _ in range(PROCESSES)), strict=True)
    rows = [
        [name, *(f"{quartile:.1f}" for quartile in statistics.quantiles(column, n=4))]
        for name, column in zip(IMPORTS, columns, strict=True)
    ]
    print(render(["import, CPU ms", "1st quartile", "median", "3rd quartile"], rows))


def milliseconds(compiled: str) -> list[float]:
    """What each import takes in a process whose bytecode is kept in that folder."""
    command = [sys.executable, "-P", "-c", PROGRAM]
    environment = os.environ | {"PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, capture_output=True, check=True, env=environment)
    taken: list[float] = json.loads(done.stdout)
    return taken


if __name__ == "__main__":
    main()

"""One start of an artifact: `python -m rnnx.start_probe MODEL CHUNK BATCH` prints what it took.

It imports nothing before its clock runs but what Python has loaded anyway.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnx_runtime import Model


def main(path: str, chunk: int, batch: int) -> None:
    """Import, open and call, and print milliseconds and bytes as JSON."""
    clock = time.perf_counter
    begun = clock()
    from rnnx_runtime import Model

    imported, before = clock(), peak_memory()
    model = Model(path)
    opened = clock()
    feeds = _feeds(model, chunk, batch)
    ready = clock()
    run = model.stream(batch=batch).feed if model.contract.streaming else model.run
    run(feeds)
    called = clock()
    for _ in range(3):  # from the second call on, buffers are bound
        run(feeds)
    import json

    taken = {
        "imports": imported - begun,
        "opening": opened - imported,
        "first_call": called - ready,
    }
    milliseconds = {name: 1000 * seconds for name, seconds in taken.items()}
    print(json.dumps({**milliseconds, "memory": peak_memory() - before}))


def _feeds(model: Model, chunk: int, batch: int) -> dict[str, Any]:
    """Inputs for a call that runs the network, which may take more frames at first."""
    import numpy as np

    from rnnx_runtime.samples import random_inputs

    frames = max(chunk, model.contract.first_chunk)
    return random_inputs(model.contract, np.random.default_rng(0), batch=batch, frames=frames)


def peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    try:
        # What getrusage tells begins, on Linux, with the peak of the process that started this one.
        with open("/proc/self/status", encoding="ascii") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    except OSError:
        import resource

        kilobyte = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobyte


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

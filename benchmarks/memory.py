"""What streams cost in memory: a thousand of them, and a million steps of one."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from conditions import tell
from stream_step import add_step_form, write_artifact

from rnnx import Model
from rnnx.table import render

STREAMS, STEPS = 1000, 1_000_000
WARM_UP = 20_000  # steps after which what is kept for reuse is there


def main() -> None:
    tell("GRU of 64 over 64 features")
    with tempfile.TemporaryDirectory() as folder:
        plain, path = Path(folder) / "plain.onnx", Path(folder) / "gru.onnx"
        write_artifact(plain, "GRU", 64, 64)
        add_step_form(plain, path)
        model = Model(path)
        rows = [thousand_streams(model), million_steps(model)]
    print(render(["resident memory", "before kB", "after kB", "more kB"], rows))


def thousand_streams(model: Model) -> list[str]:
    """Each of them under way, fed twice in turn with the others."""
    x = np.zeros((1, 1, 64), np.float32)
    warm = [model.stream() for _ in range(64)]
    feed_all(warm, x)
    before = resident()
    streams = [model.stream() for _ in range(STREAMS)]
    feed_all(streams, x)
    return row(f"{STREAMS} streams", before)


def million_steps(model: Model) -> list[str]:
    stream, x = model.stream(), np.zeros((1, 1, 64), np.float32)
    for _ in range(WARM_UP):
        stream.feed(x)
    before = resident()
    for step in range(STEPS):
        stream.feed(x)
        if sys.stderr.isatty() and step % 100_000 == 0:
            print(f"{step} steps", file=sys.stderr)
    return row(f"{STEPS} steps", before)


def feed_all(streams: list, x: np.ndarray) -> None:
    for _ in range(3):
        for stream in streams:
            stream.feed(x)


def row(name: str, before: int) -> list[str]:
    after = resident()
    return [name, str(before), str(after), str(after - before)]


def resident() -> int:
    """Resident memory of this process in kB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


if __name__ == "__main__":
    main()

"""What a frame of each of 64 live streams costs: a pool's batched run against separate runs.

Each variant gives the next frame of all streams; all run in turn in one process on one core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from conditions import on_one_core
from stream_step import dict_loop, write_artifact

from rnnx import Model, StreamPool
from rnnx.bench import measure
from rnnx.table import render

NETWORKS = (("GRU", 64, 64), ("LSTM", 64, 256))
STREAMS = 64
SECONDS = 4.0


def main() -> None:
    on_one_core(f"{STREAMS} streams")
    with tempfile.TemporaryDirectory() as folder:
        rows = [row for network in NETWORKS for row in rows_of(Path(folder), *network)]
    print(render(["a frame of each", "median us", "us a stream", "times as fast"], rows))


def rows_of(folder: Path, operator: str, features: int, hidden_size: int) -> list[list[str]]:
    path = folder / f"{operator}.onnx"
    write_artifact(path, operator, features, hidden_size)
    model = Model(path)
    x = np.random.default_rng(0).standard_normal((STREAMS, 1, features)).astype(np.float32)
    frames = [x[row : row + 1].copy() for row in range(STREAMS)]
    runs = {
        "session.run, one by one": one_by_one([dict_loop(model, frame) for frame in frames]),
        "Stream.feed, one by one": streams(model, frames),
        "pool, push and pull": pushed(model, frames),
        "pool, stacked": stacked(model, x),
    }
    for _ in range(3):
        first, *others = [run() for run in runs.values()]
        assert all(np.allclose(first, other, atol=1e-6) for other in others), "they differ"
    return [
        [
            f"{operator} {hidden_size}, {variant}",
            f"{timing.median:.0f}",
            f"{timing.median / STREAMS:.1f}",
            f"{1 / timing.ratio:.1f}",
        ]
        for variant, timing in measure(runs, seconds=SECONDS, warmup=3).items()
    ]


def one_by_one(steps: list[Callable[[], np.ndarray]]) -> Callable[[], np.ndarray]:
    return lambda: np.concatenate([step() for step in steps])


def streams(model: Model, frames: list[np.ndarray]) -> Callable[[], np.ndarray]:
    live = [model.stream() for _ in frames]
    return lambda: np.concatenate([s.feed(x) for s, x in zip(live, frames, strict=True)])


def pushed(model: Model, frames: list[np.ndarray]) -> Callable[[], np.ndarray]:
    pool = StreamPool(model, max_streams=STREAMS)
    live = [pool.open() for _ in frames]

    def step() -> np.ndarray:
        for stream, x in zip(live, frames, strict=True):
            stream.push(x)
        pool.run()
        return np.concatenate([stream.pull() for stream in live])

    return step


def stacked(model: Model, x: np.ndarray) -> Callable[[], np.ndarray]:
    pool = StreamPool(model, max_streams=STREAMS)
    live = [pool.open() for _ in range(STREAMS)]
    return lambda: pool.feed(live, x)


if __name__ == "__main__":
    main()

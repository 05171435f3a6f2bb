"""Eight threads on one pool for a minute, each result held against a stream run alone.

Each thread has streams of its own, which come and go, and feeds them pieces of random lengths.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from conditions import tell
from stream_step import write_artifact

from rnnx import Model, StreamPool
from rnnx.table import render

THREADS, STREAMS, SECONDS = 8, 4, 60.0
FRAMES = 200  # at most, in the life of a stream


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    tell(f"{THREADS} threads", f"{seconds:g} s")
    with tempfile.TemporaryDirectory() as folder:
        rows = [report(Path(folder), *network, seconds) for network in NETWORKS]
    head = [
        "one pool",
        "streams",
        "frames",
        "frames a run",
        "streams that differ",
        "largest difference",
    ]
    print(render(head, rows))


NETWORKS = (("GRU", 64, 64), ("LSTM", 64, 128))


def report(folder: Path, operator: str, features: int, hidden: int, seconds: float) -> list[str]:
    path = folder / f"{operator}.onnx"
    write_artifact(path, operator, features, hidden)
    pool = StreamPool(path, max_streams=THREADS * STREAMS // 2)  # some are put aside
    counted, lock = [0], threading.Lock()
    run = pool.run

    def counting() -> int:
        served = run()
        with lock:
            counted[0] += bool(served)
        return served

    pool.run = counting  # type: ignore[method-assign]
    end = time.monotonic() + seconds / len(NETWORKS)
    with ThreadPoolExecutor(THREADS) as threads:
        lives = [
            life for of in threads.map(lambda i: live(pool, i, end), range(THREADS)) for life in of
        ]
    differences = [compare(Model(path), x, y) for x, y in lives]
    frames = sum(len(x[0]) for x, _ in lives)
    return [
        f"{operator} {hidden}",
        str(len(lives)),
        str(frames),
        f"{frames / max(1, counted[0]):.1f}",
        str(sum(difference > 0 for difference in differences)),
        f"{max(differences):.1e}",
    ]


def live(pool: StreamPool, thread: int, end: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the streams of one thread were fed and gave, one life after another."""
    rng, lives = np.random.default_rng(thread), []
    while time.monotonic() < end:
        xs = [random_life(rng) for _ in range(STREAMS)]
        streams, ys, at = [pool.open() for _ in xs], [[] for _ in xs], [0] * len(xs)
        while any(a < x.shape[1] for a, x in zip(at, xs, strict=True)):
            turn = [i for i in range(STREAMS) if at[i] < xs[i].shape[1] and rng.random() < 0.7]
            for i in turn:
                length = int(rng.integers(1, 8))
                streams[i].push(xs[i][:, at[i] : at[i] + length], timeout=None)
                at[i] += length
                ys[i].append(streams[i].pull())
        for stream, y in zip(streams, ys, strict=True):
            y.append(stream.flush())
            stream.close()
        lives += [(x, np.concatenate(y, 1)) for x, y in zip(xs, ys, strict=True)]
    return lives


def random_life(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((1, int(rng.integers(1, FRAMES)), 64)).astype(np.float32)


def compare(model: Model, x: np.ndarray, y: np.ndarray) -> float:
    """The largest difference to the same frames fed to one stream in one thread."""
    stream = model.stream()
    alone = np.concatenate([stream.feed(x), stream.flush()], 1)
    assert alone.shape == y.shape, "frames were lost or doubled"
    return float(np.abs(alone - y).max(initial=0))


if __name__ == "__main__":
    main()

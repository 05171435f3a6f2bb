"""Frames a second that CTC decoders take, fed in chunks of ten; numpy alone, one core.

The log probabilities are made up as a trained network gives them: mostly blank, every sixth frame a
label with a second one that is nearly as probable.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

import numpy as np

from rnnx import CTCBeamSearch, CTCGreedySearch, log_softmax
from rnnx.bench import measure
from rnnx.table import render
from rnnx_runtime.frame_decoder import FrameDecoder

FRAMES, CHUNK = 200, 10
SECONDS = 4.0


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"Python {platform.python_version()}, numpy {np.__version__},", end=" ")
    print(f"{platform.machine()}, one core, sequences of {FRAMES} frames")
    rows = [row for classes in (30, 1000) for row in rows_of(classes)]
    print(render(["decoder", "classes", "frames a second", "us a frame"], rows))


def rows_of(classes: int) -> list[list[str]]:
    log_probs = made_up(classes)
    runs = {
        "greedy": decoding(CTCGreedySearch(), log_probs),
        "beam 10": decoding(CTCBeamSearch(), log_probs),
        "beam 10, max_delay 50": decoding(CTCBeamSearch(max_delay=50), log_probs),
        "beam 10, max_delay 50, min_log_prob -8": decoding(
            CTCBeamSearch(max_delay=50, min_log_prob=-8), log_probs
        ),
    }
    return [
        [name, f"{classes}", f"{FRAMES / timing.median * 1e6:.0f}", f"{timing.median / FRAMES:.0f}"]
        for name, timing in measure(runs, seconds=SECONDS, warmup=2).items()
    ]


def made_up(classes: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((FRAMES, classes))
    spikes = np.arange(FRAMES) % 6 == 0
    logits[~spikes, 0] += 12
    for gain in (11, 12):
        logits[spikes, rng.integers(1, classes, spikes.sum())] += gain
    return log_softmax(logits)


def decoding(decoder: FrameDecoder[object], log_probs: np.ndarray) -> Callable[[], object]:
    chunks = np.split(log_probs, FRAMES // CHUNK)

    def run() -> object:
        decoder.reset()
        for chunk in chunks:
            decoder.feed(chunk)
        return decoder.flush()

    return run


if __name__ == "__main__":
    main()

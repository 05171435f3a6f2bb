"""What every decoder of frames must keep to: where the sequence is cut changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rnnx_runtime.frame_decoder import FrameDecoder

Found = list[Any]


def whole(decoder: FrameDecoder[Any], scores: np.ndarray) -> Found:
    """All that a decoder at its beginning gives for the sequence."""
    return [*decoder.feed(scores), *decoder.flush()]


def in_chunks(decoder: FrameDecoder[Any], scores: np.ndarray, cuts: Sequence[int]) -> Found:
    """The same, with the sequence cut at `cuts`; equal ones give chunks of no frame."""
    parts = [decoder.feed(chunk) for chunk in np.split(scores, sorted(cuts))]
    return [found for part in (*parts, decoder.flush()) for found in part]


def hold_to_chunks(
    open_decoder: Callable[[], FrameDecoder[Any]], scores: np.ndarray, cuts: Sequence[int]
) -> None:
    """Assert that chunks, a clone, and a decoder that was reset all give exactly the whole."""
    expected = whole(open_decoder(), scores)
    decoder = open_decoder()
    assert in_chunks(decoder, scores, cuts) == expected
    decoder.reset()
    middle = len(scores) // 2
    given = list(decoder.feed(scores[:middle]))
    twin = decoder.clone()
    assert given + whole(decoder, scores[middle:]) == expected
    assert given + whole(twin, scores[middle:]) == expected


def log_probs(
    max_frames: int, max_classes: int, min_classes: int = 2
) -> st.SearchStrategy[np.ndarray]:
    """Log probabilities [time, classes] with many ties; some classes are impossible."""
    shapes = st.tuples(st.integers(0, max_frames), st.integers(min_classes, max_classes))
    weights = st.sampled_from([0.0, 0.25, 1.0, 1.0, 2.0, 9.0])
    return shapes.flatmap(lambda shape: arrays.arrays(np.float64, shape, elements=weights)).map(
        _normalised
    )


def _normalised(weights: np.ndarray) -> np.ndarray:
    weights[weights.sum(1) == 0] = 1
    with np.errstate(divide="ignore"):
        logs: np.ndarray = np.log(weights / weights.sum(1, keepdims=True))
    return logs

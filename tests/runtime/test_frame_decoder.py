"""What all decoders of frames refuse, and that they are then as they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from decoders import whole
from rnnx import (
    CTCBeamSearch,
    CTCGreedySearch,
    Hysteresis,
    InputError,
    StreamError,
    ViterbiStream,
)
from rnnx_runtime.frame_decoder import FrameDecoder

Decoder = FrameDecoder[Any]

every_decoder = pytest.mark.parametrize(
    "open_decoder",
    [CTCGreedySearch, CTCBeamSearch, lambda: ViterbiStream(np.zeros((3, 3))), Hysteresis],
)
SCORES = np.log([[0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])


@every_decoder
@pytest.mark.parametrize(
    ("scores", "fault"),
    [
        (SCORES[0], r"scores has shape \[3\], but \[time, 3\] is taken"),
        (SCORES[None], r"scores has shape \[1, 4, 3\]"),
        (SCORES[:, :2], r"scores has shape \[4, 2\], but \[time, 3\] is taken"),
        (np.where(SCORES > -0.4, np.nan, SCORES), r"scores holds nan at index \[0, 1\]"),
        (np.where(SCORES > -0.4, np.inf, SCORES), r"scores holds inf at index \[0, 1\]"),
        ([["a", "b", "c"]], "scores is <U1; it must be an array of real numbers"),
        ([[0.0], [0.0, 1.0]], "scores is not an array"),
        (None, "scores is object"),
        (SCORES + 1j, "scores is complex128"),
    ],
)
def test_scores_that_do_not_fit_are_refused(
    open_decoder: Callable[[], Decoder], scores: Any, fault: str
) -> None:
    decoder = open_decoder()
    given = list(decoder.feed(SCORES[:2]))
    with pytest.raises(InputError, match=fault):
        decoder.feed(scores)
    assert decoder.position == 2
    assert given + whole(decoder, SCORES[2:]) == whole(open_decoder(), SCORES)


@every_decoder
def test_no_class_is_refused(open_decoder: Callable[[], Decoder]) -> None:
    with pytest.raises(InputError, match=r"scores has shape \[2, 0\]"):
        open_decoder().feed(np.zeros((2, 0)))


@every_decoder
def test_a_sequence_of_no_frame_gives_nothing(open_decoder: Callable[[], Decoder]) -> None:
    assert whole(open_decoder(), SCORES[:0]) == []
    assert list(open_decoder().flush()) == []


@every_decoder
def test_behind_flush_comes_reset(open_decoder: Callable[[], Decoder]) -> None:
    decoder = open_decoder()
    expected = whole(decoder, SCORES)
    for late in (lambda: decoder.feed(SCORES), decoder.flush):
        with pytest.raises(StreamError, match="was flushed") as caught:
            late()
        assert "reset()" in str(caught.value.hint)
    decoder.reset()
    assert decoder.position == 0
    assert whole(decoder, SCORES) == expected


@every_decoder
def test_a_clone_goes_its_own_way(open_decoder: Callable[[], Decoder]) -> None:
    decoder = open_decoder()
    given = list(decoder.feed(SCORES[:1]))
    whole(decoder.clone(), SCORES[::-1])
    assert given + whole(decoder, SCORES[1:]) == whole(open_decoder(), SCORES)


@every_decoder
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_fed_may_change_afterwards(
    open_decoder: Callable[[], Decoder], dtype: type[np.floating[Any]]
) -> None:
    scores = SCORES.astype(dtype)
    expected = whole(open_decoder(), scores.astype(np.float64))
    decoder = open_decoder()
    given = list(decoder.feed(scores))
    scores[:] = 0
    assert given + list(decoder.flush()) == expected

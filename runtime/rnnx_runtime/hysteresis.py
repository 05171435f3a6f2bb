"""Hysteresis: from a score for each frame to where it is on, for voice activity and keywords.

A class is on from a score of at least `onset` until a score below `offset`. Gaps shorter than
`min_duration_off` are filled; what is then shorter than `min_duration_on` is dropped; what is left
is padded on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rnnx_runtime.arguments import Scores, hold_count, hold_number
from rnnx_runtime.errors import InputError
from rnnx_runtime.frame_decoder import FrameDecoder
from rnnx_runtime.spans import Span


class Event(NamedTuple):
    """That a span began, or that it ended.

    Attributes:
        frame: frames that had to be fed until it was known.
        span: the span; where it began, so far.
        ended: whether it is whole.
    """

    frame: int
    span: Span
    ended: bool


class Hysteresis(FrameDecoder[list[Event]]):
    """Where each class is on: `feed` takes its scores, and gives events as they are decided.

    Classes do not depend on each other. Events come in the order of their frames, then classes. Of
    one class, spans never overlap. A span's score is its largest.

    Args:
        onset: the least score with which a class goes on.
        offset: the least score with which it stays on; `onset` where left out.
        min_duration_on: frames that a span lasts at least, before it is padded.
        min_duration_off: frames that a class is off at least, so that its span ends.
        padding: frames by which a span becomes longer on each side where there are so many; at most
            `min_duration_off`, so that the end is known when it is given.

    Raises:
        InputError: a duration is too small, `offset` is above `onset`, or `padding` is too large.
    """

    def __init__(
        self,
        onset: float = 0.5,
        offset: float | None = None,
        *,
        min_duration_on: int = 1,
        min_duration_off: int = 1,
        padding: int = 0,
    ) -> None:
        self._onset = hold_number("onset", onset)
        self._offset = self._onset if offset is None else hold_number("offset", offset, most=onset)
        self._min_on = hold_count("min_duration_on", min_duration_on)
        self._min_off = hold_count("min_duration_off", min_duration_off)
        self._padding = hold_count("padding", padding, least=0)
        if self._padding > self._min_off:
            raise InputError(
                f"padding is {padding}, more than min_duration_off, {min_duration_off}",
                hint="The end of a span would lie in frames that have not come.",
            )
        super().__init__()

    def _begin(self) -> None:
        self._tracks: list[_Track] = []

    def _advance(self, frames: Scores) -> list[Event]:
        self._tracks = self._tracks or [_Track(i) for i in range(frames.shape[1])]
        return [
            event
            for known, row in enumerate(frames.tolist(), self.position + 1)
            for track, score in zip(self._tracks, row, strict=True)
            for event in self._follow(track, score, known)
        ]

    def _end(self) -> list[Event]:
        return [event for track in self._tracks for event in self._close(track, self.position)]

    def _follow(self, track: _Track, score: float, known: int) -> list[Event]:
        """Take the frame before `known`."""
        track.is_on = score >= (self._offset if track.is_on else self._onset)
        if track.is_on:
            track.take(score, known)
            return self._open(track, known)
        return self._close(track, known) if known - track.end >= self._min_off else []

    def _open(self, track: _Track, known: int) -> list[Event]:
        if track.is_open or track.end - track.start < self._min_on:
            return []
        track.is_open = True
        return [Event(known, self._padded(track, track.end), ended=False)]

    def _close(self, track: _Track, known: int) -> list[Event]:
        track.is_empty = True
        if not track.is_open:
            return []
        track.is_open = False
        span = self._padded(track, min(track.end + self._padding, known))
        track.free = span.end
        return [Event(known, span, ended=True)]

    def _padded(self, track: _Track, end: int) -> Span:
        return Span(track.id, max(track.start - self._padding, track.free), end, track.score)


@dataclass(slots=True)
class _Track:
    """What one class has been since it went on."""

    id: int
    is_on: bool = False  # in the last frame
    is_open: bool = False  # whether its span is known to last long enough
    is_empty: bool = True
    start: int = 0
    end: int = 0  # behind the last frame that was on
    score: float = 0.0
    free: int = 0  # behind the span before, padding included

    def take(self, score: float, known: int) -> None:
        """Have one more frame that is on, the one before `known`."""
        if self.is_empty:
            self.start, self.score, self.is_empty = known - 1, score, False
        self.end, self.score = known, max(self.score, score)

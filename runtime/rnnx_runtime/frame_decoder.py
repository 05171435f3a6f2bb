"""What all decoders have in common that take a network's output frame after frame."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Generic, Self, TypeVar

from rnnx_runtime.arguments import Scores, hold_scores
from rnnx_runtime.errors import StreamError

Decoded = TypeVar("Decoded")


class FrameDecoder(ABC, Generic[Decoded]):
    """Decodes one sequence, chunk by chunk; where it is cut changes nothing.

    What all calls of `feed` and the `flush` return, put together, is the same for any chunks. The
    scores are computed in float64.

    Attributes:
        position: frames that were fed.
    """

    position: int

    def __init__(self, classes: int | None = None) -> None:
        self._classes = classes
        self.reset()

    def feed(self, scores: Any) -> Decoded:
        """Feed any number of frames, and get what is decided by them.

        Args:
            scores: [time, classes], real numbers: of a stream's `[batch, time, classes]` one
                sequence, `y[0]`. The class says which scores it takes.

        Raises:
            InputError: the scores do not fit, or hold NaN. The decoder is as it was.
            StreamError: the decoder was flushed.
        """
        self._refuse_flushed()
        frames = hold_scores("scores", scores, "time", self._classes or "classes")
        decoded = self._advance(frames)
        self._classes = frames.shape[1]
        self.position += len(frames)
        return decoded

    def flush(self) -> Decoded:
        """End the sequence, and get what its end decides.

        Raises:
            StreamError: the decoder was flushed before.
        """
        self._refuse_flushed()
        decoded = self._end()
        self._flushed = True
        return decoded

    def reset(self) -> None:
        """Begin a new sequence."""
        self.position = 0
        self._flushed = False
        self._begin()

    def clone(self) -> Self:
        """A decoder of its own that goes on from here."""
        return copy.deepcopy(self)

    def _refuse_flushed(self) -> None:
        if self._flushed:
            raise StreamError(
                "the decoder was flushed: its sequence has ended",
                hint="Call reset() to begin the next sequence.",
            )

    @abstractmethod
    def _begin(self) -> None:
        """Forget all frames."""

    @abstractmethod
    def _advance(self, frames: Scores) -> Decoded:
        """Take the frames at `position`; raise before anything is changed."""

    @abstractmethod
    def _end(self) -> Decoded:
        """Decide what is left."""

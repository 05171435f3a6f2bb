"""The clock of a wire: how many frames stand on it, when, and which input frames each one saw."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction

from rnnx_runtime.count import Count


@dataclass(frozen=True, slots=True)
class Clock:
    """When the frames of a wire come.

    Attributes:
        stride: input frames for one frame here.
        count: frames here after so many input frames, while the sequence goes on.
        length: frames here over a whole sequence of so many input frames.
        first, last: frame `t` here depends on the input frames from `t * stride + first` to
            `t * stride + last`; `first` is None where it depends on all before.
    """

    stride: Fraction = Fraction(1)
    count: Count = field(default_factory=Count)
    length: Count = field(default_factory=Count)
    first: Fraction | None = Fraction(0)
    last: Fraction = Fraction(0)

    def window(self, kernel: int, *, stride: int = 1, left: int = 0, right: int = 0) -> Clock:
        """Behind a window of `kernel` frames that moves by `stride` over a padded sequence.

        A frame counts when the whole step of its window has come, so that every chunk is used up.
        """
        waited = max(kernel, stride)
        return replace(
            self,
            stride=self.stride * stride,
            count=self.count.then(addend=left - waited + stride, divisor=stride),
            length=self.length.then(addend=left + right - kernel + stride, divisor=stride),
            first=None if self.first is None else self.first - left * self.stride,
            last=self.last + (kernel - 1 - left) * self.stride,
        )

    def upsampled(self, factor: int, *, kernel: int, left: int = 0, right: int = 0) -> Clock:
        """Behind a transposed window: each frame spreads over `kernel` frames, `factor` apart.

        Frames that would be cut off if the sequence ended wait until it goes on.
        """
        earliest = self.stride * (left - kernel + 1) / factor
        over = kernel - factor - right
        return replace(
            self,
            stride=self.stride / factor,
            count=self.count.then(multiplier=factor, addend=min(0, over) - left),
            length=self.length.then(multiplier=factor, addend=over - left),
            first=None if self.first is None else self.first + earliest,
            last=self.last + self.stride * left / factor,
        )

    def remembering(self) -> Clock:
        """Behind an operator that remembers every frame before."""
        return replace(self, first=None)

    def without_end(self, frames: int) -> Clock:
        """The same without so many frames at the end; a frame waits until it is none of them."""
        length = self.length.then(addend=-frames)
        return replace(self, count=self.count.least(length), length=length)

    def lag(self, frames: int) -> Fraction:
        """How many frames fewer than their share of so many input frames have come."""
        return frames / self.stride - self.count(frames)

    def delayed(self, frames: int) -> Clock:
        """The same frames, so many later."""
        return replace(self, count=self.count.then(addend=-frames))

    def joined(self, other: Clock) -> Clock:
        """Where two wires of the same stride meet: the later one counts."""
        firsts = (self.first, other.first)
        return Clock(
            stride=self.stride,
            count=self.count.least(other.count),
            length=self.length.least(other.length),
            first=None if None in firsts else min(f for f in firsts if f is not None),
            last=max(self.last, other.last),
        )

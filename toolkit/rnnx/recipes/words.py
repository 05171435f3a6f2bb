"""Sentences whose words have tags: what networks see of words, and batches to train on."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

RARE = 0  # the id of a clue that the training part has less than twice

_HIDDEN = 0.1  # of the words

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words, and as many tags."""

    words: tuple[str, ...]
    tags: tuple[str, ...]


class Vocabulary:
    """Numbers for what is seen of a word, its clues: itself, its beginning, two ends, its shape.

    Args:
        sentences: of the training part; clues they have less than twice are `RARE`.

    Attributes:
        sizes: how many numbers there are for each of the five clues.
    """

    def __init__(self, sentences: Iterable[Sentence]) -> None:
        words = [clues(word) for sentence in sentences for word in sentence.words]
        self._ids = [_number(column) for column in zip(*words, strict=True)]
        self.sizes = tuple(len(ids) + 1 for ids in self._ids)

    def encode(self, words: Iterable[str]) -> Ids:
        """The network's input for the words of a sentence, int64 `[time, 5]`."""
        rows = [
            [ids.get(clue, RARE) for ids, clue in zip(self._ids, clues(word), strict=True)]
            for word in words
        ]
        return np.array(rows, np.int64)


class UsualTags:
    """Each word the tag it has most often; a word never seen the most frequent tag of all.

    Args:
        sentences: of the training part.
    """

    def __init__(self, sentences: Iterable[Sentence]) -> None:
        self._tags: dict[str, Counter[str]] = defaultdict(Counter)
        for sentence in sentences:
            for word, tag in zip(sentence.words, sentence.tags, strict=True):
                self._tags[word][tag] += 1
        self._all = sum(self._tags.values(), Counter())

    def of(self, words: Iterable[str]) -> list[str]:
        """A tag for each word."""
        return [self._tags.get(word, self._all).most_common(1)[0][0] for word in words]


def clues(word: str) -> tuple[str, ...]:
    """The word, three letters of its beginning, four and two of its end, and its shape."""
    low = word.lower()
    return low, low[:3], low[-4:], low[-2:], shape(word)


def shape(word: str) -> str:
    """How the word is written: "Xx-d" for "Rio-92", each run of one kind once."""
    return "".join(kind for kind, _ in groupby(_kind(sign) for sign in word))


def batches(
    sentences: Sequence[Sentence],
    vocabulary: Vocabulary,
    tags: Sequence[str],
    *,
    size: int,
    order: random.Random,
) -> list[tuple[Tensor, Tensor]]:
    """The sentences in random batches of one length each, so that nothing is padded.

    One word in ten is hidden, so that the network learns to do with its other clues.

    Args:
        sentences: of the training part.
        vocabulary: encodes their words.
        tags: all there are; a tag's id is its place here.
        size: sentences of a batch, at most.
        order: draws the batches, and what is hidden.

    Returns:
        Inputs int64 `[batch, time, 5]`, and tags int64 `[batch, time]`.
    """
    by_length = defaultdict(list)
    for sentence in order.sample(sentences, len(sentences)):
        by_length[len(sentence.words)].append(sentence)
    groups = [
        group[start : start + size]
        for group in by_length.values()
        for start in range(0, len(group), size)
    ]
    order.shuffle(groups)
    return [_batch(group, vocabulary, tags, order) for group in groups]


def _batch(
    group: list[Sentence], vocabulary: Vocabulary, tags: Sequence[str], order: random.Random
) -> tuple[Tensor, Tensor]:
    x = np.stack([vocabulary.encode(sentence.words) for sentence in group])
    hidden = np.random.default_rng(order.getrandbits(32)).random(x.shape[:2]) < _HIDDEN
    x[hidden, 0] = RARE
    targets = [[tags.index(tag) for tag in sentence.tags] for sentence in group]
    return torch.from_numpy(x), torch.tensor(targets)


def _number(seen: Iterable[str]) -> dict[str, int]:
    common = [clue for clue, times in Counter(seen).items() if times > 1]
    return {clue: number for number, clue in enumerate(common, RARE + 1)}


def _kind(sign: str) -> str:
    if sign.isdigit():
        return "d"
    if sign.isalpha():
        return "x" if sign.islower() else "X"
    return sign

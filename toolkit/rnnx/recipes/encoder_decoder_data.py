"""What the encoder-decoders of the recipes read: pairs of texts, their vocabularies, batches."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rnnx.recipes.recipe import Array, Run

PADDING, START, END, UNKNOWN = range(4)
_SPECIAL = ("<padding>", "<start>", "<end>", "<unknown>")
_BATCH = 32

Ids = list[int]
Pair = tuple[Sequence[Any], Ids]  # of a source, and of its target
Batch = tuple[Tensor, Tensor, Tensor]
Tokens = tuple[str, ...]
Texts = tuple[Tokens, Tokens]
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokens a network knows, each at the place that is its id; four special ones first."""

    tokens: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ids", {token: i for i, token in enumerate(self.tokens)})

    @classmethod
    def of(cls, sequences: Iterable[Sequence[str]], size: int | None = None) -> Vocabulary:
        """The most frequent tokens of the sequences, `size` with the special ones, or all."""
        counts = Counter(token for sequence in sequences for token in sequence)
        kept = sorted(counts, key=lambda token: (-counts[token], token))
        return cls((*_SPECIAL, *kept)[:size])

    def __len__(self) -> int:
        return len(self.tokens)

    def ids(self, tokens: Iterable[str]) -> Ids:
        """The id of each token."""
        return [self._ids.get(token, UNKNOWN) for token in tokens]

    def words(self, ids: Iterable[int]) -> Tokens:
        """The token of each id."""
        return tuple(self.tokens[i] for i in ids)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Sources and targets in three parts, and the vocabularies of the first.

    Attributes:
        train, validation, test: the tokens of each source and of its target.
        source, target: what the network knows.
    """

    train: Sequence[Texts]
    validation: Sequence[Texts]
    test: Sequence[Texts]
    source: Vocabulary
    target: Vocabulary

    def pair(self, texts: Texts) -> Pair:
        """The ids of a source and its target."""
        source, target = texts
        return self.source.ids(source), self.target.ids(target)

    def written(self, source: Tokens, ids: Iterable[int]) -> Tokens:
        """The tokens that the ids written for a source stand for."""
        return self.target.words(ids)

    def outputs(self, run: Run) -> list[Tokens]:
        """What a form of the network writes for each source of the test part."""
        ids = run([np.array(self.pair(texts)[0]) for texts in self.test])
        return [self.written(source, row) for (source, _), row in zip(self.test, ids, strict=True)]


def example(data: Corpus) -> tuple[Tensor, Tensor]:
    """Four sources of the validation part, int64 `[4, time, ...]`, and their lengths."""
    return padded([data.pair(texts)[0] for texts in data.validation[:4]])


def calibration(data: Corpus) -> list[Array]:
    """Sources of the validation part, int64 `[time, ...]` each."""
    return [np.array(data.pair(texts)[0]) for texts in data.validation[:32]]


def part_of(group: str) -> str:
    """The part that all of a group stand in, told by a hash: 10 % "test", 10 % "validation"."""
    tenth = hashlib.sha256(group.encode()).digest()[0] % 10
    return {0: "test", 1: "validation"}.get(tenth, "train")


def split(grouped: Iterable[tuple[str, tuple[T, T]]]) -> dict[str, list[tuple[T, T]]]:
    """Pairs of source and target by the part of their group, in random but fixed order.

    A source stands once, with its first target, and in no part if it stands in one before.
    """
    parts: dict[str, dict[T, T]] = {"train": {}, "validation": {}, "test": {}}
    for group, (source, target) in grouped:
        parts[part_of(group)].setdefault(source, target)
    seen: set[T] = set()
    found = {}
    for name, pairs in parts.items():
        found[name] = [pair for pair in pairs.items() if pair[0] not in seen]
        random.Random(0).shuffle(found[name])
        seen |= pairs.keys()
    return found


def batches(pairs: Sequence[Pair]) -> Iterator[Batch]:
    """Pairs of like lengths together: src, lengths, and target between start and end."""
    ordered = sorted(pairs, key=lambda pair: (len(pair[1]), len(pair[0])))
    for i in range(0, len(ordered), _BATCH):
        sources, targets = zip(*ordered[i : i + _BATCH], strict=True)
        yield (*padded(sources), padded([[START, *ids, END] for ids in targets])[0])


def padded(sequences: Sequence[Sequence[Any] | Array]) -> tuple[Tensor, Tensor]:
    """The sequences under each other, int64 `[batch, time, ...]`, and their lengths `[batch]`."""
    tensors = [torch.as_tensor(ids) for ids in sequences]
    return pad_sequence(tensors, True, PADDING), torch.tensor([len(ids) for ids in sequences])


def most_associated(pairs: Iterable[tuple[Sequence[str], Sequence[str]]]) -> dict[str, str]:
    """For each source token the target token that most goes with it, by Dice's coefficient.

    Among equals that is the token itself.
    """
    left, right, both = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for source, target in pairs:
        left.update(set(source))
        right.update(set(target))
        both.update(itertools.product(set(source), set(target)))
    best: dict[str, tuple[float, bool, str]] = {}
    for (a, b), count in both.items():
        found = (2 * count / (left[a] + right[b]), a == b, b)
        best[a] = max(best.get(a, found), found)
    return {a: b for a, (_, _, b) in best.items()}

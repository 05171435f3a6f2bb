"""The data of the entities: addresses of the United States, labelled by hand word by word."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.etree import ElementTree

from rnnx.recipes.packages import locate
from rnnx.recipes.words import Sentence, Vocabulary

_LABELLED = "training/labeled.xml"


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses in three parts, of which no two share one, and what the first one shows.

    Attributes:
        tags: all that the training part has, sorted: `B-` begins an entity, `I-` goes on with it.
        vocabulary: of the training part.
    """

    train: list[Sentence]
    validation: list[Sentence]
    test: list[Sentence]
    tags: tuple[str, ...]
    vocabulary: Vocabulary


def load() -> Addresses:
    """The addresses that usaddress is trained on: 70 % to train on, 10 % to stop by, 20 % to test.

    Raises:
        RnnxError: the package is not there; the hint tells the line to type.
    """
    return split(addresses(locate("usaddress", _LABELLED).read_text(encoding="utf-8")))


def addresses(xml: str) -> list[Sentence]:
    """The addresses of an XML file in which each word is an element, named by its label."""
    rows = ([(word.text or "", word.tag) for word in row] for row in ElementTree.fromstring(xml))
    return [
        Sentence(tuple(word for word, _ in row), chunked([label for _, label in row]))
        for row in rows
    ]


def chunked(labels: Sequence[str]) -> tuple[str, ...]:
    """Tags of words with these labels: words of one label in a row are one entity."""
    runs = ((label, len(list(run))) for label, run in groupby(labels))
    return tuple(tag for label, n in runs for tag in [f"B-{label}"] + [f"I-{label}"] * (n - 1))


def split(labelled: Iterable[Sentence]) -> Addresses:
    """By what is written, upper and lower case alike: an address that comes twice is taken once."""
    once = {tuple(word.lower() for word in row.words): row for row in labelled}
    rows = [once[words] for words in sorted(once)]
    random.Random(0).shuffle(rows)
    validation, test = round(len(rows) * 0.7), round(len(rows) * 0.8)
    train = rows[:validation]
    tags = tuple(sorted({tag for row in train for tag in row.tags}))
    return Addresses(train, rows[validation:test], rows[test:], tags, Vocabulary(train))

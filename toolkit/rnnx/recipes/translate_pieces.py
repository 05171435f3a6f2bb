"""Pieces of words, by byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909)."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable

_SPACE = "▁"  # stands before a word that a space stands before


class Pieces:
    """Cuts text into pieces that are frequent in it, and joins them again without loss.

    Args:
        merges: pairs of pieces that become one, the first first.
    """

    def __init__(self, merges: Iterable[tuple[str, str]]) -> None:
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._cut_word = functools.cache(self._cut)

    @classmethod
    def learn(cls, texts: Iterable[str], merges: int) -> Pieces:
        """Merge the most frequent pair of neighbours, again and again."""
        counts = Counter(word for text in texts for word in _words(text))
        words = [(list(word), count) for word, count in counts.items() if count > 1]
        learned = []
        for _ in range(merges):
            pairs = Counter[tuple[str, str]]()
            for pieces, count in words:
                for pair in itertools.pairwise(pieces):
                    pairs[pair] += count
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            learned.append(best)
            for pieces, _ in words:
                _merge(pieces, best)
        return cls(learned)

    def cut(self, text: str) -> tuple[str, ...]:
        """The pieces of the text."""
        return tuple(piece for word in _words(text) for piece in self._cut_word(word))

    def _cut(self, word: str) -> list[str]:
        pieces = list(word)
        while known := self._ranks.keys() & set(itertools.pairwise(pieces)):
            _merge(pieces, min(known, key=self._ranks.__getitem__))
        return pieces


def join(pieces: Iterable[str]) -> str:
    """The text that was cut."""
    return "".join(pieces).replace(_SPACE, " ").strip()


def _words(text: str) -> list[str]:
    """Words, numbers and single signs, each with the space before it."""
    return re.findall(rf"{_SPACE}?(?:[^\W\d]+|\d|[^\w]|_)", _SPACE + _SPACE.join(text.split()))


def _merge(pieces: list[str], pair: tuple[str, str]) -> None:
    """Make one of each such pair, from left to right, in place."""
    i = 0
    while i < len(pieces) - 1:
        if (pieces[i], pieces[i + 1]) == pair:
            pieces[i : i + 2] = ["".join(pair)]
        i += 1

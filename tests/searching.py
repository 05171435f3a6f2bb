"""Plain searches over prefixes, in Python loops: references that share nothing with rnnx."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

LogProbs = Callable[[tuple[int, ...]], Sequence[float]]
Hypothesis = tuple[list[int], float]


def beam_search(log_probs: LogProbs, *, end: int, beam: int, max_length: int) -> Hypothesis:
    """Follow the best `beam` continuations until all have ended; nothing is dropped early.

    `log_probs` gives those of the next id after a prefix, and is asked anew for each prefix.
    """
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    found = []
    for _ in range(max_length):
        candidates = [
            ((*prefix, token), score + float(gained))
            for prefix, score in live
            for token, gained in enumerate(log_probs(prefix))
        ]
        best = sorted(candidates, key=lambda candidate: -candidate[1])[:beam]
        found += [(prefix[:-1], score) for prefix, score in best if prefix[-1] == end]
        live = [(prefix, score) for prefix, score in best if prefix[-1] != end]
    prefix, score = max(found + live, key=lambda candidate: candidate[1])
    return list(prefix), score


def exhaustive_search(
    log_probs: LogProbs, *, vocabulary: int, end: int, max_length: int
) -> Hypothesis:
    """The best of all sequences that end, and of all of `max_length` ids that do not."""
    others = [token for token in range(vocabulary) if token != end]
    whole = list(itertools.product(others, repeat=max_length))
    ended = [
        (*prefix, end)
        for length in range(max_length)
        for prefix in itertools.product(others, repeat=length)
    ]
    scored = [(ids, _score(log_probs, ids)) for ids in ended + whole]
    ids, score = max(scored, key=lambda candidate: candidate[1])
    return [token for token in ids if token != end], score


def _score(log_probs: LogProbs, ids: tuple[int, ...]) -> float:
    return sum(float(log_probs(ids[:i])[token]) for i, token in enumerate(ids))

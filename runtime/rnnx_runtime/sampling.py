"""Draws ids from what a language model gives for the next one."""

from __future__ import annotations

from typing import Any

import numpy as np

from rnnx_runtime.arguments import Scores, hold_count, hold_number, hold_scores
from rnnx_runtime.decoding import Ids
from rnnx_runtime.errors import InputError


def sample(
    logits: Any,
    rng: np.random.Generator,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
) -> Ids:
    """The next id of each sequence, int64 [batch], drawn with `sampling_probs`.

    One number is drawn from `rng` for each sequence; `numpy.random.default_rng(seed)` gives the
    same ids for the same seed.

    Args:
        logits: [batch, vocabulary], real numbers; -infinity for an id that cannot be.
        rng: where chance comes from.
        temperature, top_k, top_p: see `sampling_probs`.

    Raises:
        InputError: an argument does not fit, or logits hold NaN.
    """
    probs = sampling_probs(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    cumulative = probs.cumsum(1)
    # A number in [0, 1) times the total is below the total, so an id of probability 0 is never hit.
    drawn = rng.random((len(probs), 1)) * cumulative[:, -1:]
    ids: Ids = (cumulative <= drawn).sum(1)
    return ids


def sampling_probs(
    logits: Any, *, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Scores:
    """The probabilities with which `sample` draws, float64 [batch, vocabulary].

    Args:
        logits: [batch, vocabulary], real numbers; -infinity for an id that cannot be.
        temperature: what logits are divided by; below 1 for surer choices.
        top_k: only the `top_k` most probable ids, of equal ones the lower; None for all.
        top_p: of these only the fewest most probable ones that have, together, a probability of
            `top_p` or more (nucleus sampling): one at least; 1 for all.

    Raises:
        InputError: an argument does not fit, or logits hold NaN.
    """
    temperature = hold_number("temperature", temperature, above=0)
    top_p = hold_number("top_p", top_p, above=0, most=1)
    logits = hold_scores("logits", logits, "batch", "vocabulary")
    _refuse_impossible(logits)
    order = np.argsort(-logits, axis=1, kind="stable")
    probs = _softmax(np.take_along_axis(logits, order, 1), temperature)
    if top_k is not None:
        probs[:, hold_count("top_k", top_k) :] = 0
        probs /= probs.sum(1, keepdims=True)
    if top_p < 1:
        probs[_before(probs) >= top_p] = 0
        probs /= probs.sum(1, keepdims=True)
    given = np.empty_like(probs)
    np.put_along_axis(given, order, probs, 1)
    return given


def _softmax(logits: Scores, temperature: float) -> Scores:
    """Softmax of logits [batch, vocabulary], the largest of each row first."""
    with np.errstate(over="ignore"):  # what is too far below the largest becomes -infinity
        probs: Scores = np.exp((logits - logits[:, :1]) / temperature)
    probs /= probs.sum(1, keepdims=True)
    return probs


def _before(probs: Scores) -> Scores:
    """The probability of all ids that come before each."""
    before = np.zeros_like(probs)
    before[:, 1:] = probs[:, :-1].cumsum(1)
    return before


def _refuse_impossible(logits: Scores) -> None:
    impossible = np.flatnonzero(logits.max(1) == -np.inf)
    if len(impossible):
        raise InputError(
            f"no id is possible for sequence {impossible[0]}: all logits are -infinity"
        )

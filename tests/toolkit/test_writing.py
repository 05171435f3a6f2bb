"""A language model writes: what it is fed, what it draws, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from rnnx.recipes.shipped import WRITER
from rnnx.recipes.writing import write
from rnnx_runtime import InputError, Model, Stream

MODEL = Model(WRITER)


def test_a_text_goes_on_from_its_prompt() -> None:
    text = write(Stream(MODEL), "In the ", 20, np.random.default_rng(0))
    assert text.startswith("In the ")
    assert len(text) == len("In the ") + 20


def test_each_character_is_likely_after_those_before_it() -> None:
    text = write(Stream(MODEL), "And ", 200, np.random.default_rng(1))
    alphabet = MODEL.contract.labels or ()
    ids = np.array([[alphabet.index(character) for character in text]])
    logits = np.asarray(Stream(MODEL).feed(ids))[0].astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    bits = -np.take_along_axis(log_probs[:-1], ids[0, 1:, None], 1).mean() / np.log(2)
    assert bits < 2  # by chance it would be 6; drawn below temperature 1, it is less than usual


@pytest.mark.parametrize("prompt", ["", "naïve", "7"])
def test_a_prompt_that_cannot_be_read_is_refused(prompt: str) -> None:
    with pytest.raises(InputError, match="no text can go on from"):
        write(Stream(MODEL), prompt, 5, np.random.default_rng(0))

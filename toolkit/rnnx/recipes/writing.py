"""Lets a streamed language model write: each character is drawn and fed back. Needs no torch."""

from __future__ import annotations

import numpy as np

from rnnx_runtime import InputError, Stream, sample


def write(stream: Stream, prompt: str, count: int, rng: np.random.Generator) -> str:
    """A text that goes on from a prompt.

    Args:
        stream: of a language model: ids int64 `[batch, time]` in, logits of the next out, whose
            contract names the characters.
        prompt: what it is fed first; one character at least.
        count: characters to write.
        rng: what they are drawn with.

    Raises:
        InputError: the prompt is empty, or holds a character that the model does not know.
    """
    alphabet = stream.model.contract.labels or ()
    unknown = sorted(set(prompt) - set(alphabet))
    if unknown or not prompt:
        raise InputError(
            f"no text can go on from {prompt!r}: unknown characters {''.join(unknown)!r}",
            hint=f"Begin with some of {''.join(alphabet)!r}.",
        )
    drawn = ids = np.array([alphabet.index(character) for character in prompt], np.int64)
    for _ in range(count):
        logits = np.asarray(stream.feed(drawn[None]))
        drawn = sample(logits[:, -1], rng, temperature=0.7)
        ids = np.concatenate([ids, drawn])
    return "".join(alphabet[i] for i in ids)

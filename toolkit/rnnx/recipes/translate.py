"""Translate what a user interface says from English to German, by an encoder-decoder."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rnnx.extras import load as load_extra
from rnnx.recipes import encoder_decoder
from rnnx.recipes.encoder_decoder import generation
from rnnx.recipes.encoder_decoder_copying import CopyCorpus, PointerGenerator
from rnnx.recipes.encoder_decoder_data import (
    Tokens,
    Vocabulary,
    calibration,
    example,
    most_associated,
    split,
)
from rnnx.recipes.packages import locate
from rnnx.recipes.recipe import Metric, Recipe, Run, Tell, generated

_LONGEST = 80  # characters of a string and of its translation
_WORDS = 2_500
_COPIED = 30  # ids for words that the vocabulary has not: as many as a string may have
_MOST = 30  # words to write


def load() -> CopyCorpus:
    """What Home Assistant says, in English and German, split by component.

    Raises:
        DataError: the package with the data is not here.
    """
    components = locate("homeassistant", "homeassistant/components/__init__.py").parent
    return corpus(
        (folder.name, pair)
        for folder in sorted(components.iterdir())
        for pair in translations(folder / "translations")
        if max(map(len, pair)) <= _LONGEST
    )


def corpus(strings: Iterable[tuple[str, tuple[str, str]]]) -> CopyCorpus:
    """Pairs of strings by the name of their component, split by it, in the words of both.

    Copying an English word writes the German one that most goes with it in the training part.
    """
    parts = split((name, (words(english), words(german))) for name, (english, german) in strings)
    known = Vocabulary.of(itertools.chain.from_iterable(parts["train"]), _WORDS)
    german_of = most_associated(parts["train"])
    return CopyCorpus(**parts, source=known, target=known, copies=german_of)


def words(text: str) -> Tokens:
    """Words, placeholders such as `{name}`, and each other sign for itself."""
    return tuple(re.findall(r"\{\w+\}|\w+|[^\w\s]", text))


def joined(tokens: Iterable[str]) -> str:
    """The text that the words were of, spaces where German has them."""
    text = re.sub(r" ([.,:;!?)\]”“])", r"\1", " ".join(tokens))
    return re.sub(r"([(\[„]) | ?([-/]) ?", r"\1\2", text)


def translations(folder: Path) -> Iterator[tuple[str, str]]:
    """What stands under the same key in `en.json` and `de.json` of a folder, if it has them."""
    if (folder / "en.json").exists() and (folder / "de.json").exists():
        english, german = (
            dict(leaves(json.loads((folder / name).read_text(encoding="utf-8"))))
            for name in ("en.json", "de.json")
        )
        yield from ((english[key], german[key]) for key in english if key in german)


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each string of nested mappings, after its path."""
    if isinstance(tree, str):
        yield path, tree
        return
    for key, value in tree.items():
        yield from leaves(value, (*path, key))


def train(
    data: CopyCorpus, *, cell: str, full: bool, seed: int, tell: Tell, epochs: int | None = None
) -> PointerGenerator:
    """Train on all pairs; where `full`, twice the units for twice as long.

    Raises:
        InputError: there is no such cell.
    """
    torch.manual_seed(seed)
    hidden_size = 384 if full else 192
    model = PointerGenerator(len(data.source), _COPIED, cell, hidden_size, dropout=0.3)
    encoder_decoder.train(
        model,
        [data.pair(texts) for texts in data.train],
        [data.pair(texts) for texts in data.validation],
        epochs=epochs or (16 if full else 8),
        tell=tell,
    )
    return model


def score(run: Run, data: CopyCorpus) -> float:
    """BLEU of a form of the network over the test part."""
    return bleu(data.outputs(run), data)


def bleu(outputs: Sequence[Tokens], data: CopyCorpus) -> float:
    """How many n-grams of words are right, 0 to 100, as sacrebleu counts."""
    sacrebleu = load_extra("sacrebleu", "BLEU")
    return float(sacrebleu.corpus_bleu(*_texts(outputs, data)).score)


def chrf(outputs: Sequence[Tokens], data: CopyCorpus) -> float:
    """F2 of the n-grams of characters that outputs and translations share, 0 to 100."""
    sacrebleu = load_extra("sacrebleu", "chrF")
    return float(sacrebleu.corpus_chrf(*_texts(outputs, data)).score)


def baselines(data: CopyCorpus) -> dict[str, float]:
    """The English words as they are, and each as the German one that most goes with it."""
    return {name: bleu(outputs, data) for name, outputs in untrained(data).items()}


def untrained(data: CopyCorpus) -> dict[str, list[Tokens]]:
    """What needs no network, for each source of the test part, by name."""
    english = [source for source, _ in data.test]
    german = [tuple(data.copies.get(word, word) for word in source) for source in english]
    return {"the source itself": english, "word by word": german}


def show(data: CopyCorpus, artifact: str) -> dict[str, str]:
    """chrF, of the baselines too, and a few translations."""
    forms = {"int8": data.outputs(generated(artifact)), **untrained(data)}
    said = zip(data.test[:5], forms["int8"][:5], strict=True)
    return {
        "chrF": ", ".join(f"{name} {chrf(outputs, data):.2f}" for name, outputs in forms.items()),
        "for example": "; ".join(f"{joined(source)}: {joined(out)}" for (source, _), out in said),
    }


def _texts(outputs: Sequence[Tokens], data: CopyCorpus) -> tuple[list[str], list[list[str]]]:
    """Outputs, and the one list of references, as sacrebleu takes them."""
    return [joined(output) for output in outputs], [[joined(target) for _, target in data.test]]


RECIPE = Recipe(
    name="translate",
    title="translate what a user interface says from English to German",
    metric=Metric("BLEU", "", higher_is_better=True, digits=2),
    packages=("homeassistant",),
    load=load,
    train=train,
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
    streams=False,
    show=show,
    generation=lambda data: generation(_MOST),
)

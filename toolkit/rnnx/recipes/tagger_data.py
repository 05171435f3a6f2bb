"""The data of the tagger: sentences of a Brazilian newspaper, a part of speech for each word."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rnnx.recipes.packages import locate
from rnnx.recipes.words import Sentence, Vocabulary

TAGS = (  # the universal parts of speech
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)

_ANNOTATED = "dante/data/porttinari/annotated.conllu"

Article = str


@dataclass(frozen=True, slots=True)
class Treebank:
    """The sentences in three parts, of which no two share an article or a sentence.

    Attributes:
        vocabulary: of the training part.
    """

    train: list[Sentence]
    validation: list[Sentence]
    test: list[Sentence]
    vocabulary: Vocabulary


def load() -> Treebank:
    """Porttinari's sentences, 80 % of the articles to train on, 10 % each to validate and to test.

    Raises:
        RnnxError: the package is not there; the hint tells the line to type.
    """
    with locate("dante-corpora", _ANNOTATED).open(encoding="utf-8") as lines:
        return split(sentences(lines))


def sentences(lines: Iterable[str]) -> Iterator[tuple[Article, Sentence]]:
    """The sentences of a file in CoNLL-U, whose ids end in the article and the sentence."""
    article, rows = "", []
    for line in (*lines, ""):
        if line.startswith("# sent_id"):
            article = line.split("_")[-2]
        columns = line.split("\t")
        if columns[0].isdigit():  # 3-4 stands before what is contracted
            rows.append(columns)
        elif rows and not line.strip():
            yield article, Sentence(tuple(r[1] for r in rows), tuple(r[3] for r in rows))
            rows = []


def split(treebank: Iterable[tuple[Article, Sentence]]) -> Treebank:
    """By article; a sentence that stands in several articles is taken once."""
    once = {sentence.words: (article, sentence) for article, sentence in treebank}.values()
    articles = sorted({article for article, _ in once})
    random.Random(0).shuffle(articles)
    validation, test = round(len(articles) * 0.8), round(len(articles) * 0.9)
    parts = (articles[:validation], articles[validation:test], articles[test:])
    train, validating, testing = ([s for name, s in once if name in set(part)] for part in parts)
    return Treebank(train, validating, testing, Vocabulary(train))

"""The data of the summarizer: what Debian's packages are, at length and in a line."""

from __future__ import annotations

import itertools
import lzma
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rnnx.recipes.encoder_decoder_copying import CopyCorpus
from rnnx.recipes.encoder_decoder_data import Texts, Tokens, Vocabulary, split
from rnnx.recipes.packages import locate

SOURCE_LENGTH = 40  # words of a description that are read
TARGET_LENGTH = 14  # the most words of a line

_SHORTEST = 3  # words of a line
_WORDS = 5_000
_VALIDATION, _TEST = 1_000, 1_500


def debian() -> CopyCorpus:
    """Descriptions and their first lines, of one package of each source package of Debian 12.

    Packages made of one source describe much the same, so that only the one with the shortest name
    is taken. Words are in lower case, without the signs between them.

    Raises:
        DataError: the files are not here.
    """
    sources = source_names(paragraphs(locate("debian-packages", "Packages.xz")))
    texts = descriptions(paragraphs(locate("debian-descriptions", "Translation-en.xz")))
    return corpus(one_of_each(sources, texts))


def corpus(texts: dict[str, Texts]) -> CopyCorpus:
    """The texts by the name of their source package, split by it."""
    lengths = range(_SHORTEST, TARGET_LENGTH + 1)
    parts = split((name, text) for name, text in texts.items() if len(text[1]) in lengths)
    known = Vocabulary.of(itertools.chain.from_iterable(parts["train"]), _WORDS)
    held_out = parts["validation"][:_VALIDATION], parts["test"][:_TEST]
    return CopyCorpus(parts["train"], *held_out, source=known, target=known, copies={})


def one_of_each(sources: dict[str, str], texts: Iterable[tuple[str, Texts]]) -> dict[str, Texts]:
    """The texts of the package with the shortest name, for each source package."""
    found: dict[str, Texts] = {}
    for name, text in sorted(texts, key=lambda item: (len(item[0]), item[0])):
        if name in sources:
            found.setdefault(sources[name], text)
    return found


def paragraphs(path: Path) -> Iterator[list[str]]:
    """The lines of each paragraph of a Debian control file, compressed with xz."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for blank, lines in itertools.groupby(file, key=str.isspace):
            if not blank:
                yield [line.rstrip("\n") for line in lines]


def source_names(packages: Iterable[Sequence[str]]) -> dict[str, str]:
    """The source package of each package; where none is named it has the same name."""
    found = {}
    for lines in packages:
        fields = dict(
            line.split(": ", 1) for line in lines if re.match(r"(Package|Source): ", line)
        )
        found[fields["Package"]] = fields.get("Source", fields["Package"]).split()[0]
    return found


def descriptions(packages: Iterable[Sequence[str]]) -> Iterator[tuple[str, Texts]]:
    """Name, and the words of the description and of its first line, for each package."""
    for name, _, line, *rest in packages:
        text = " ".join(rest)
        yield name.partition(": ")[2], (words(text)[:SOURCE_LENGTH], words(line.partition(": ")[2]))


def words(text: str) -> Tokens:
    """The words in lower case; signs within a word, as in `real-time`, are part of it."""
    return tuple(re.findall(r"\w+(?:[.+'-]\w+)*\+*", text.lower()))

"""Tag each word of a sentence with its part of speech, in plain PyTorch.

Two networks: one reads the whole sentence in both directions; one reads it word after word, and
looks two words ahead, so that it streams.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnnx.recipes.recipe import Metric, Recipe, Run, Tell, best_device, in_torch, recurrent
from rnnx.recipes.tagger_data import TAGS, Treebank, load
from rnnx.recipes.words import Ids, Sentence, UsualTags, batches

_LOOK_AHEAD = 2  # words
_EMBEDDED = 32  # values for each clue
_BATCH = 32
_LEARNING_RATE = 0.003


class Tagger(nn.Module):
    """Reads words, and gives for each how likely each tag is.

    Args:
        sizes: how many numbers each clue has.
        labels: the tags.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        hidden_size: units of the recurrent layer, of each direction.
        both_ways: read the sentence backward as well, in place of two words ahead.
    """

    offsets: Tensor

    def __init__(
        self,
        sizes: tuple[int, ...],
        labels: tuple[str, ...] = TAGS,
        *,
        cell: str = "gru",
        hidden_size: int = 64,
        both_ways: bool = False,
    ) -> None:
        super().__init__()
        self.labels = labels
        offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0)  # of each clue's rows in one table
        self.register_buffer("offsets", offsets)
        self.embedding = nn.Embedding(sum(sizes), _EMBEDDED)
        width = _EMBEDDED * len(sizes)
        self.ahead = None if both_ways else nn.Conv1d(width, width, 1 + _LOOK_AHEAD)
        self.dropout = nn.Dropout(0.4)
        self.recurrent = recurrent(cell, width, hidden_size, bidirectional=both_ways)
        self.head = nn.Linear(hidden_size * (1 + both_ways), len(labels))

    def forward(self, x: Tensor) -> Tensor:
        """Tag whole sentences.

        Args:
            x: int64 `[batch, time, 5]`, as `Vocabulary.encode` makes it.

        Returns:
            The logits of the tags, float32 `[batch, time, tags]`.
        """
        words = self.dropout(self.embedding(x + self.offsets).flatten(2))
        if self.ahead is not None:
            padded = nn.functional.pad(words.transpose(1, 2), (0, _LOOK_AHEAD))
            words = self.ahead(padded).transpose(1, 2).relu()
        hidden, _ = self.recurrent(words)
        logits: Tensor = self.head(self.dropout(hidden))
        return logits


def train(
    data: Treebank,
    *,
    cell: str = "gru",
    full: bool = False,
    seed: int = 0,
    tell: Tell = lambda message: None,
    both_ways: bool = False,
) -> Tagger:
    """Train for some epochs; the weights that were best on the validation part.

    Args:
        data: the sentences; the test part is not looked at.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        full: four times the units, twice the epochs.
        seed: of the first weights and of the batches.
        tell: told after each epoch how many of the validation part's words are right.
        both_ways: as `Tagger` takes it.
    """
    torch.manual_seed(seed)
    order, device, epochs = random.Random(seed), best_device(), 12 if full else 6
    hidden_size = 256 if full else 64
    model = Tagger(data.vocabulary.sizes, cell=cell, hidden_size=hidden_size, both_ways=both_ways)
    optimizer = torch.optim.Adam(model.parameters(), _LEARNING_RATE)
    best, weights = 0.0, model.state_dict()
    for epoch in range(1, epochs + 1):
        model.to(device).train()
        for x, tags in batches(data.train, data.vocabulary, TAGS, size=_BATCH, order=order):
            _descend(model, optimizer, x.to(device), tags.to(device))
        right = accuracy(in_torch(model.to("cpu").eval()), data, data.validation)
        tell(f"epoch {epoch} of {epochs}: {right:.2f} % of the validation part's words are right")
        if right > best:
            best, weights = right, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model


def score(run: Run, data: Treebank) -> float:
    """Percent of the test part's words that get their tag."""
    return accuracy(run, data, data.test)


def accuracy(run: Run, data: Treebank, part: Sequence[Sentence]) -> float:
    """Percent of the part's words that get their tag."""
    right: list[Any] = []
    for sentence in part:
        best = run(data.vocabulary.encode(sentence.words)[None])[0].argmax(1)
        right += [TAGS[tag] == truth for tag, truth in zip(best, sentence.tags, strict=True)]
    return 100 * float(np.mean(right))


def baselines(data: Treebank) -> dict[str, float]:
    """Each word the tag it has most often in the training part."""
    usual = UsualTags(data.train)
    right = [
        tag == truth
        for sentence in data.test
        for tag, truth in zip(usual.of(sentence.words), sentence.tags, strict=True)
    ]
    return {"most frequent tag": 100 * float(np.mean(right))}


def example(data: Treebank) -> tuple[Tensor]:
    """A sentence of the validation part."""
    return (torch.from_numpy(calibration(data)[0]),)


def calibration(data: Treebank) -> list[Ids]:
    """Sentences of the validation part, int64 `[1, time, 5]` each."""
    return [data.vocabulary.encode(sentence.words)[None] for sentence in data.validation[:50]]


RECIPE = Recipe(
    name="tagger",
    title="tag the words of Brazilian newspaper sentences with their parts of speech",
    metric=Metric("accuracy", "%", higher_is_better=True, digits=2),
    packages=("dante-corpora",),
    cell="lstm",
    load=load,
    train=partial(train, both_ways=True),
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
    streams=False,
)


def _descend(model: Tagger, optimizer: torch.optim.Optimizer, x: Tensor, tags: Tensor) -> None:
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x).transpose(1, 2), tags)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()

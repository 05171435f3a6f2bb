"""Find the parts of an address, with a linear-chain CRF behind a recurrent network.

The network scores each word's tags, the chain what follows what; `rnnx.viterbi` finds the best.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

import rnnx
from rnnx.recipes.entities_data import Addresses, load
from rnnx.recipes.recipe import (
    Array,
    Decoder,
    Metric,
    Recipe,
    Run,
    Tell,
    best_device,
    decoded,
    in_torch,
)
from rnnx.recipes.tagger import Tagger
from rnnx.recipes.words import Ids, Sentence, UsualTags, batches

_EPOCHS = 30
_BATCH = 16
_LEARNING_RATE = 0.003

Entity = tuple[str, int, int]  # label, first word, the word behind the last


class Chain(nn.Module):
    """A linear-chain CRF: scores of a tag behind another, of the first and of the last tag."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.zeros(tags, tags))
        self.start = nn.Parameter(torch.zeros(tags))
        self.end = nn.Parameter(torch.zeros(tags))

    def log_likelihood(self, emissions: Tensor, tags: Tensor) -> Tensor:
        """How likely the tags are, `[batch]`.

        Args:
            emissions: float32 `[batch, time, tags]`.
            tags: int64 `[batch, time]`.
        """
        return self.score(emissions, tags) - self.log_partition(emissions)

    def score(self, emissions: Tensor, tags: Tensor) -> Tensor:
        """The score of these tags, `[batch]`."""
        emitted = emissions.gather(2, tags[..., None]).sum((1, 2))
        followed = self.transitions[tags[:, :-1], tags[:, 1:]].sum(1)
        return emitted + followed + self.start[tags[:, 0]] + self.end[tags[:, -1]]

    def log_partition(self, emissions: Tensor) -> Tensor:
        """The scores of all sequences of tags together, `[batch]`, by the forward algorithm."""
        reached = self.start + emissions[:, 0]
        for frame in emissions[:, 1:].unbind(1):
            reached = (reached[..., None] + self.transitions).logsumexp(1) + frame
        return (reached + self.end).logsumexp(1)


class Parser(Tagger):
    """The tagger's network, whose logits are the emissions of a chain.

    Args:
        data: tells the clues and the tags.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        hidden_size: units of the recurrent layer.
    """

    def __init__(self, data: Addresses, cell: str = "gru", hidden_size: int = 64) -> None:
        super().__init__(data.vocabulary.sizes, data.tags, cell=cell, hidden_size=hidden_size)
        self.chain = Chain(len(data.tags))


def train(
    data: Addresses,
    *,
    cell: str = "gru",
    full: bool = False,
    seed: int = 0,
    tell: Tell = lambda message: None,
) -> Parser:
    """Train for some epochs; the weights that were best on the validation part.

    Args:
        data: the addresses; the test part is not looked at.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        full: four times the units, twice the epochs.
        seed: of the first weights and of the batches.
        tell: told after each epoch the F1 of the validation part's entities.
    """
    torch.manual_seed(seed)
    order, device = random.Random(seed), best_device()
    epochs = 2 * _EPOCHS if full else _EPOCHS
    model = Parser(data, cell, 256 if full else 64)
    optimizer = torch.optim.Adam(model.parameters(), _LEARNING_RATE)
    best, weights = 0.0, model.state_dict()
    for epoch in range(1, epochs + 1):
        model.to(device).train()
        for x, tags in batches(data.train, data.vocabulary, data.tags, size=_BATCH, order=order):
            _descend(model, optimizer, x.to(device), tags.to(device))
        model.to("cpu").eval()
        reached = f1(decoded(in_torch(model), decoder(model)), data, data.validation)
        tell(f"epoch {epoch} of {epochs}: F1 of the validation part's entities {reached:.2f} %")
        if reached > best:
            best, weights = reached, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model


def decoder(model: Parser) -> Decoder:
    """What turns the network's output `[1, time, tags]` into the best tags, int64 `[time]`."""
    transitions, start, end = (scores.detach().numpy() for scores in model.chain.parameters())
    chain = {"start_transitions": start, "end_transitions": end}

    def best(emissions: Array) -> Array:
        return rnnx.viterbi(emissions, transitions, **chain).tags[0]

    return best


def score(run: Run, data: Addresses) -> float:
    """The F1 of the test part's entities in percent."""
    return f1(run, data, data.test)


def f1(run: Run, data: Addresses, part: Sequence[Sentence]) -> float:
    """The F1 of the part's entities in percent."""
    found = [run(data.vocabulary.encode(sentence.words)[None]) for sentence in part]
    return entity_f1([[data.tags[tag] for tag in tags] for tags in found], part)


def entity_f1(found: Iterable[Sequence[str]], part: Iterable[Sentence]) -> float:
    """The F1 in percent: an entity is right if its label, its first and its last word are."""
    right = counted = 0
    for tags, sentence in zip(found, part, strict=True):
        guessed, true = entities(tags), entities(sentence.tags)
        right += len(guessed & true)
        counted += len(guessed) + len(true)
    return 200 * right / counted


def entities(tags: Iterable[str]) -> set[Entity]:
    """The entities that tags tell, as conlleval does: `I-` behind another label begins one too."""
    found: list[Entity] = []
    for place, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if prefix == "I" and found and found[-1][::2] == (label, place):
            found[-1] = (label, found[-1][1], place + 1)
        elif label:
            found.append((label, place, place + 1))
    return set(found)


def baselines(data: Addresses) -> dict[str, float]:
    """Each word the tag it has most often in the training part."""
    usual = UsualTags(data.train)
    found = [usual.of(address.words) for address in data.test]
    return {"most frequent tag": entity_f1(found, data.test)}


def example(data: Addresses) -> tuple[Tensor]:
    """An address of the validation part."""
    return (torch.from_numpy(calibration(data)[0]),)


def calibration(data: Addresses) -> list[Ids]:
    """The addresses of the validation part, int64 `[1, time, 5]` each."""
    return [data.vocabulary.encode(address.words)[None] for address in data.validation]


RECIPE = Recipe(
    name="entities",
    title="find the parts of addresses in the United States",
    metric=Metric("entity F1", "%", higher_is_better=True, digits=2),
    packages=("usaddress",),
    load=load,
    train=train,
    decoder=decoder,
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
)


def _descend(model: Parser, optimizer: torch.optim.Optimizer, x: Tensor, tags: Tensor) -> None:
    optimizer.zero_grad()
    loss = -model.chain.log_likelihood(model(x), tags).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()

"""Say in a line what a Debian package is: an encoder-decoder that may copy, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rnnx.extras import load as load_extra
from rnnx.recipes import encoder_decoder
from rnnx.recipes.encoder_decoder import generation
from rnnx.recipes.encoder_decoder_copying import CopyCorpus, PointerGenerator
from rnnx.recipes.encoder_decoder_data import Tokens, calibration, example
from rnnx.recipes.recipe import Metric, Recipe, Run, Tell, generated
from rnnx.recipes.summarize_data import SOURCE_LENGTH, TARGET_LENGTH, debian

_LEADS = (8, 10, 12, 14)


def load() -> CopyCorpus:
    """What Debian's packages are, at length and in a line, split by source package.

    Raises:
        DataError: the data is not here.
    """
    return debian()


def train(
    data: CopyCorpus, *, cell: str, full: bool, seed: int, tell: Tell, epochs: int | None = None
) -> PointerGenerator:
    """Train on all pairs; where `full`, twice the units for twice as long.

    Raises:
        InputError: there is no such cell.
    """
    torch.manual_seed(seed)
    hidden_size = 256 if full else 128
    model = PointerGenerator(len(data.source), SOURCE_LENGTH, cell, hidden_size, dropout=0.2)
    encoder_decoder.train(
        model,
        [data.pair(texts) for texts in data.train],
        [data.pair(texts) for texts in data.validation],
        epochs=epochs or (8 if full else 4),
        tell=tell,
    )
    return model


def score(run: Run, data: CopyCorpus) -> float:
    """ROUGE-L of a form of the network over the test part, in percent."""
    return rouge(data.outputs(run), data)["rougeL"]


def rouge(outputs: Sequence[Tokens], data: CopyCorpus) -> dict[str, float]:
    """Mean F1 of the words, pairs of words, and longest common part of each line, in percent."""
    names = ("rouge1", "rouge2", "rougeL")
    scorer = load_extra("rouge_score.rouge_scorer", "ROUGE").RougeScorer(names)
    found = [
        scorer.score(" ".join(target), " ".join(output))
        for output, (_, target) in zip(outputs, data.test, strict=True)
    ]
    return {name: 100 * sum(one[name].fmeasure for one in found) / len(found) for name in names}


def baselines(data: CopyCorpus) -> dict[str, float]:
    """The first words of the description."""
    leads = {n: [source[:n] for source, _ in data.test] for n in _LEADS}
    return {f"the first {n} words": rouge(lead, data)["rougeL"] for n, lead in leads.items()}


def show(data: CopyCorpus, artifact: str) -> dict[str, str]:
    """ROUGE-1 and ROUGE-2, and a few lines."""
    outputs = data.outputs(generated(artifact))
    scores = rouge(outputs, data)
    return {
        "ROUGE-1, ROUGE-2": f"{scores['rouge1']:.1f} %, {scores['rouge2']:.1f} % (int8)",
        "for example": "; ".join(" ".join(output) for output in outputs[:5]),
    }


RECIPE = Recipe(
    name="summarize",
    title="say in a line what a Debian package is",
    metric=Metric("ROUGE-L", "%", higher_is_better=True, digits=2),
    packages=("debian-descriptions", "debian-packages"),
    load=load,
    train=train,
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
    streams=False,
    show=show,
    generation=lambda data: generation(TARGET_LENGTH),
)

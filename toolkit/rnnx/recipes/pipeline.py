"""The whole way once: train, export, check, quantize, stream, and score each form."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rnnx.bench import measure
from rnnx.recipes.forms import Form, array_forms, sequence_forms
from rnnx.recipes.recipe import Array, Decoder, Recipe, Run, Tell, decoded
from rnnx_runtime.files import replacing


@dataclass(frozen=True, slots=True)
class Row:
    """How one form of the network, or a baseline, did on the test part.

    Attributes:
        name: the form.
        score: as the recipe's metric says.
        file: the path of its file or folder; None for a baseline, as are the next two.
        bytes: the size of that.
        step_us: median time of one step in microseconds: of a stream, one chunk; else, one
            sequence. None where the form is streamed by another row.
        max_error: largest difference of an output from torch's, over the test part; None where the
            outputs are ids.
    """

    name: str
    score: float
    file: str | None = None
    bytes: int | None = None
    step_us: float | None = None
    max_error: float | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a run of a recipe found.

    Attributes:
        recipe, cell, full, seed: what was run.
        passed: whether the artifacts equal the torch model.
        training_s: seconds of CPU time that training took.
        rows: torch, the artifacts, then the baselines.
        notes: what else the recipe says of this run, by name.
    """

    recipe: str
    cell: str
    full: bool
    seed: int
    passed: bool
    training_s: float
    rows: tuple[Row, ...]
    notes: dict[str, str]

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


def run(
    recipe: Recipe,
    directory: str | os.PathLike[str],
    *,
    cell: str | None = None,
    full: bool = False,
    seed: int = 0,
    tell: Tell = lambda message: None,
) -> Result:
    """Train a recipe's network, take it all the way to a small artifact, and score each form.

    Args:
        recipe: what to run.
        directory: where the files go; made if it is not there.
        cell: `"rnn"`, `"gru"` or `"lstm"`; the recipe's own where left out.
        full: the larger size, which takes longer.
        seed: of all that is random.
        tell: told in a sentence what happens next.

    Raises:
        RnnxError: the data is not there, or there is no such cell.
    """
    data = recipe.load()
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    cell = cell or recipe.cell
    tell(f"training {recipe.name} ({cell})")
    start = time.process_time()
    model = recipe.train(data, cell=cell, full=full, seed=seed, tell=tell)
    training_s = time.process_time() - start
    weights = _write_weights(model, folder / f"{recipe.name}.pt")
    tell("exporting, checking and quantizing")
    make = sequence_forms if recipe.generation else array_forms
    passed, forms = make(recipe, data, model, weights)
    tell("scoring each form on the test part, and timing steps")
    rows = [*_score(recipe, data, forms, recipe.decoder(model)), *_baselines(recipe, data)]
    result = Result(recipe.name, cell, full, seed, passed, training_s, tuple(rows), {})
    return replace(result, notes=recipe.show(data, result.row("int8").file or ""))


def _write_weights(model: nn.Module, path: Path) -> Path:
    with replacing(path) as beside:
        torch.save(model.state_dict(), beside)
    return path


def _score(recipe: Recipe, data: Any, forms: list[Form], decoder: Decoder) -> Iterator[Row]:
    steps = {form.name: form.step for form in forms if form.step is not None}
    step_us = {name: timing.median for name, timing in measure(steps).items()}
    expected: list[Any] = []
    for form in forms:
        outputs: list[Any] = []
        score = recipe.score(decoded(_kept(form.run, outputs), decoder), data)
        expected = expected or outputs
        yield Row(
            form.name,
            score,
            file=str(form.file),
            bytes=size(form.file),
            step_us=step_us.get(form.name),
            max_error=None if recipe.generation else _max_error(outputs, expected),
        )


def _baselines(recipe: Recipe, data: Any) -> list[Row]:
    return [Row(name, score) for name, score in recipe.baselines(data).items()]


def _kept(run: Run, outputs: list[Any]) -> Run:
    """The same form; what it gives is kept in `outputs`."""

    def kept(x: Any) -> Any:
        outputs.append(run(x))
        return outputs[-1]

    return kept


def _max_error(outputs: list[Array], expected: list[Array]) -> float:
    pairs = zip(outputs, expected, strict=True)
    return max(float(np.abs(one - other).max()) for one, other in pairs)


def size(path: Path) -> int:
    """Bytes of a file, or of the files of a folder."""
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)

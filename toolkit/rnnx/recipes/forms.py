"""The forms of a trained network: torch, ONNX, streamed, small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

import rnnx
from rnnx.recipes.encoder_decoder_data import padded
from rnnx.recipes.recipe import Array, Recipe, Run, generated, in_torch, streamed

LEVELS = ("int8-store", "int8")


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a trained network.

    Attributes:
        name: as in `int8`.
        file: its file, or its folder.
        run: runs it over whole sequences.
        step: runs one step of it, to be timed; None where that is not how it is used.
    """

    name: str
    file: Path
    run: Run
    step: Callable[[], object] | None


def array_forms(
    recipe: Recipe, data: Any, model: nn.Module, weights: Path
) -> tuple[bool, list[Form]]:
    """Export, check and quantize a network that takes one array and gives one.

    Args:
        recipe, data: the recipe and what it loaded.
        model: the trained network.
        weights: its file; the artifacts are written beside it.

    Returns:
        Whether the artifacts equal the model; its forms.
    """
    offline = weights.with_name(f"{recipe.name}-offline.onnx")
    rnnx.export(model, recipe.example(data), offline)
    artifact = offline
    if recipe.streams:
        artifact = weights.with_name(f"{recipe.name}.onnx")
        rnnx.export(model, recipe.example(data), artifact, streaming=True)
    passed = all(rnnx.check(path, model).passed for path in {offline, artifact})
    x = recipe.calibration(data)[0][:1]
    x = x[:, : recipe.chunk] if recipe.streams else x
    in_torch_step = partial(in_torch(model), x)
    forms = [Form("torch", weights, in_torch(model), in_torch_step)]
    offline_step = None if recipe.streams else partial(_model_run(offline), x)
    forms.append(Form("ONNX", offline, _model_run(offline), offline_step))
    if recipe.streams:
        forms.append(_opened(recipe, "streamed", artifact, x))
    for level in LEVELS:
        small = weights.with_name(f"{recipe.name}-{level}.onnx")
        rnnx.quantize(artifact, small, level=level, calibration=recipe.calibration(data))
        forms.append(_opened(recipe, level, small, x))
    return passed, forms


def sequence_forms(
    recipe: Recipe, data: Any, model: nn.Module, weights: Path
) -> tuple[bool, list[Form]]:
    """Export and quantize an encoder-decoder; the arguments as `array_forms` takes them.

    Returns:
        Whether the artifact equals the model, which the export proves; its forms.
    """
    assert recipe.generation is not None
    generation = recipe.generation(data)
    files = {"ONNX": weights.with_name(recipe.name)}
    src, lengths = recipe.example(data)
    rnnx.export_seq2seq(
        model,
        (src, lengths),
        files["ONNX"],
        start=generation.start,
        end=generation.end,
        max_length=generation.max_length,
    )
    sources = recipe.calibration(data)
    src, lengths = padded(sources)
    met = {"src": src.numpy(), "lengths": lengths.numpy()}
    for level in LEVELS:
        files[level] = weights.with_name(f"{recipe.name}-{level}")
        rnnx.quantize(files["ONNX"], files[level], level=level, calibration=met)
    runs = {name: generated(file) for name, file in files.items()}
    runs = {"torch": partial(generation.generate, model), **runs}
    files = {"torch": weights, **files}
    step = [sources[0]]
    return True, [Form(name, files[name], run, partial(run, step)) for name, run in runs.items()]


def _opened(recipe: Recipe, name: str, path: Path, x: Array) -> Form:
    if not recipe.streams:
        return Form(name, path, _model_run(path), partial(_model_run(path), x))
    stream = rnnx.Stream(path)
    return Form(name, path, streamed(str(path), recipe.chunk), partial(stream.feed, x))


def _model_run(path: Path) -> Run:
    run: Run = rnnx.Model(path).run
    return run

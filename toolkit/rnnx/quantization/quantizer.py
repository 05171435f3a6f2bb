"""The door: one artifact in, a smaller one out, and a report of what that cost."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rnnx.quantization.budget import Budget
from rnnx.quantization.calibration import Calibration
from rnnx.quantization.folder import open_files, write_folder
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.one_file import Tell, Way, write_smaller
from rnnx.quantization.original import Function, open_original
from rnnx.quantization.report import QuantizationReport
from rnnx.quantization.trial import AUTO
from rnnx_runtime.errors import InputError
from rnnx_runtime.files import refuse_overwriting, writable


def quantize(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    level: str = "int8",
    calibration: Calibration | None = None,
    chunk: int | None = None,
    batch: int | None = None,
    tune: bool = False,
    budget: str | None = None,
    metric: Function | None = None,
    tell: Tell = lambda text: None,
) -> QuantizationReport:
    """Write `src` to `dst` with smaller weights, and measure what that costs.

    Both are run on the same inputs before `dst` is written, as they are deployed: a streaming
    artifact chunk after chunk, any other whole. What the level promises of chunks and of other
    sequences is proven on them.

    Args:
        src: an artifact, or any ONNX file that onnxruntime runs, in one file; or the folder of an
            encoder-decoder, which becomes the folder `dst`.
        dst: where the smaller one goes; the contract's inputs, outputs and states stay the same.
        level: `"fp16-store"`, `"int8-store"`, `"int4-store"`, `"int8"`, `"int8-block"`,
            `"int4"`, or `"auto"`: what keeps `budget` at the least size.
        calibration: what to measure on, and what weights of four bits are rounded by: an array
            `[batch, time, ...]` as the contract's input says, arrays by input name, the path of an
            `.npy` or `.npz` file of these, or of a folder of such files, an iterable of any of
            them, or `"module:function"` or `"path/file.py:function"`, which gives them when called
            without arguments, a generator for one. No more is read once there are 100,000 frames.
            Without it, random inputs. For a folder, sources: `src`, and `lengths` unless all frames
            count; the step is measured on what it takes while the original writes of them.
        chunk: frames that are fed at a time where it is deployed; without it, as few as can be run,
            mostly one.
        batch: sequences that advance together where it is deployed; without it, as many as each run
            of the calibration data holds, of random inputs one where it streams, else two.
        tune: time on this device, at that chunk and batch, every way to compute each recurrent
            layer, and take the fastest, instead of going by its size; float32 where none gains.
        budget: for `"auto"`: `"snr=35"`, the least SNR in dB of any output and state on these
            runs; `"size=200KB"`, the most the file may take; or by how much the figure of `metric`
            may be worse, relative to the original's: `"metric=-0.5%"` where a higher one is better,
            `"metric=+0.5%"` where a lower one is. Each matrix of each layer, and of GRU and LSTM
            the gates and the candidate, gets its own bits (see `search`). What was measured is kept
            beside `dst` until that is written, so that a search that was ended goes on.
        metric: as `rnnx.parity.Metric` takes it: gives a figure for the outputs and the inputs by
            name, labels among these, of one run of the calibration data. The mean is reported. For
            a folder, the outputs are `ids`, `lengths` and `scores` of what both files write.
        tell: is told what is being done.

    Raises:
        InputError: `level` is unknown, the calibration data does not fit, or `src` cannot run such
            chunks or batches, there is nothing to tune, the metric raises or gives no number,
            `dst` is `src` or the calibration data, or what was kept beside `dst` is of another
            search.
        ArtifactError: `src` is missing, not ONNX, or damaged; `dst` has no folder.
        QuantizationError: nothing would change, `src` is quantized already, the result gives NaN or
            infinity, nothing keeps the budget, or the level does not hold what it promises. Nothing
            is written.
    """
    _refuse_unknown(level)
    wanted = _budget(level, budget, tune)
    refuse_overwriting(
        dst, src, calibration if isinstance(calibration, str | os.PathLike) else None
    )
    way = Way(level, tune, wanted, tell)
    options: dict[str, Any] = {"calibration": calibration, "chunk": chunk, "batch": batch}
    if Path(src).is_dir():
        return write_folder(open_files(src, metric=metric, **options), dst, way)
    writable(dst)
    original = open_original(src, metric=metric, **options)
    with ExitStack() as journals:
        return write_smaller(original, dst, way, journals, kept=dst)


def _refuse_unknown(level: str) -> None:
    names = (*LEVELS, AUTO)
    if level not in names:
        raise InputError(f"there is no level {level!r}", hint=f"Choose one of {', '.join(names)}.")


def _budget(level: str, budget: str | None, tune: bool) -> Budget | None:
    if (level == AUTO) != (budget is not None):
        raise InputError(
            "a budget and the level auto come together",
            hint="Give level auto and a budget such as snr=35, size=200KB or metric=-0.5%, or"
            " neither.",
        )
    if budget is not None and tune:
        raise InputError(
            "the level auto keeps weights small and has nothing to tune",
            hint="Tune one of the levels int8, int8-block or int4.",
        )
    return None if budget is None else Budget.parse(budget)

"""All levels side by side: what each would cost, before one is chosen. Nothing is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict

from rnnx.quantization.calibration import Calibration
from rnnx.quantization.folder import Files, open_files, write_folder
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.one_file import KEEPING, Way, write_level
from rnnx.quantization.original import Function, Original, open_original
from rnnx.quantization.report import QuantizationReport
from rnnx.starting import starts
from rnnx_exporters.artifact import load_graph
from rnnx_runtime.contract import METADATA_KEY
from rnnx_runtime.errors import QuantizationError


@dataclass(frozen=True, slots=True)
class Compared:
    """What a level would cost.

    Attributes:
        level: its name.
        report: what quantizing measured; None where it was refused.
        reason: why it was refused.
        memory: bytes that opening the file and a first call take beyond the imports.
        agreement: how often the largest value along the last axis is the same one, over all outputs
            in which there is something to choose from; None where there is none.
        figure: what the metric gives; None without one.
    """

    level: str
    report: QuantizationReport | None = None
    reason: str = ""
    memory: float | None = None
    agreement: float | None = None
    figure: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """An artifact, and what each level would make of it.

    Attributes:
        bytes: of the artifact itself.
        memory: bytes that opening the artifact itself and a first call take beyond the imports;
            None for ONNX from elsewhere, which the runner does not open, and for a folder.
        figure: what the metric gives for the artifact itself; None without one.
        levels: what each level would cost.
    """

    bytes: int
    memory: float | None
    figure: float | None
    levels: tuple[Compared, ...]


class _Options(TypedDict):
    """What `quantize` takes of data and deployment."""

    calibration: Calibration | None
    chunk: int | None
    batch: int | None
    metric: Function | None


def compare_levels(
    src: str | os.PathLike[str],
    *,
    calibration: Calibration | None = None,
    chunk: int | None = None,
    batch: int | None = None,
    tune: bool = False,
    metric: Function | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Quantize an artifact to every level, and measure each.

    Args:
        src: an artifact, any ONNX file that onnxruntime runs, or an encoder-decoder's folder.
        calibration, chunk, batch, metric: as `quantize` takes them.
        tune: time the ways to compute each recurrent layer, where a level has several.
        tell: is told what is being done.

    Raises:
        ArtifactError: `src` is missing, not ONNX, or damaged.
        InputError: the calibration data, the chunk or the batch does not fit, the metric has no
            data, raises or gives no number.
        QuantizationError: `src` is quantized already.
    """
    options = _Options(calibration=calibration, chunk=chunk, batch=batch, metric=metric)
    if Path(src).is_dir():
        return _compare_folder(open_files(src, **options), tune, tell)
    original = open_original(src, **options)
    with tempfile.TemporaryDirectory() as folder:
        paths = {level: Path(folder, f"{level}.onnx") for level in LEVELS}
        tried = []
        for level, path in paths.items():
            tuned = tune and level in KEEPING
            write = partial(write_level, original, path, level, tune=tuned, tell=tell)
            tried.append(_measured(level, write, tell))
        memory = _memory(original, [path for path in paths.values() if path.exists()], tell)
    levels = (replace(each, memory=memory.get(paths[each.level])) for each in tried)
    own_memory = memory.get(original.path)
    return Comparison(original.bytes, own_memory, original.own_figure, tuple(levels))


def _compare_folder(files: Files, tune: bool, tell: Callable[[str], None]) -> Comparison:
    with tempfile.TemporaryDirectory() as folder:
        tried = []
        for level in LEVELS:
            way = Way(level, tune and level in KEEPING, None, tell)
            write = partial(write_folder, files, Path(folder, level), way)
            tried.append(_measured(level, write, tell))
    size = sum(original.bytes for original in files.originals.values())
    return Comparison(size, None, files.own_figure, tuple(tried))


def _measured(
    level: str, write: Callable[[], QuantizationReport], tell: Callable[[str], None]
) -> Compared:
    tell(f"measuring {level} ...")
    try:
        report = write()
    except QuantizationError as error:
        return Compared(level, reason=str(error))
    return Compared(level, report, agreement=report.agreement, figure=report.figure)


def _memory(
    original: Original, paths: list[Path], tell: Callable[[str], None]
) -> dict[Path, float]:
    """What each file takes in a process of its own, where there is a contract to run it by."""
    if METADATA_KEY not in load_graph(original.path).metadata_props:
        return {}
    files = [original.path, *paths]
    tell(f"starting each of {len(files)} files a few times ...")
    found = starts([*map(str, files)], chunk=original.chunk or 1, batch=original.batch or 1)
    return dict(zip(files, (start.memory for start in found), strict=True))

"""All levels side by side: what each would cost, before one is chosen. Nothing is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rnnx.quantization.calibration import Calibration
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.one_file import KEEPING, write_level
from rnnx.quantization.original import Function, Original, open_original
from rnnx.quantization.report import QuantizationReport
from rnnx.starting import starts
from rnnx_exporters.artifact import load_graph
from rnnx_runtime.contract import METADATA_KEY
from rnnx_runtime.errors import InputError, QuantizationError


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
        memory: bytes that opening the artifact itself and a first call take beyond the imports;
            None for ONNX from elsewhere, which the runner does not open.
        figure: what the metric gives for the artifact itself; None without one.
        levels: what each level would cost.
    """

    memory: float | None
    figure: float | None
    levels: tuple[Compared, ...]


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
        src: an artifact, or any ONNX file that onnxruntime runs.
        calibration, chunk, batch, metric: as `quantize` takes them.
        tune: time the ways to compute each recurrent layer, where a level has several.
        tell: is told what is being done.

    Raises:
        ArtifactError: `src` is missing, not ONNX, or damaged.
        InputError: the calibration data, the chunk or the batch does not fit, the metric has no
            data, raises or gives no number, or `src` is a folder.
        QuantizationError: `src` is quantized already.
    """
    if Path(src).is_dir():
        raise InputError(
            f"{os.fspath(src)!r} is a folder of an encoder-decoder",
            hint="Compare each of its two files by itself.",
        )
    original = open_original(src, calibration=calibration, chunk=chunk, batch=batch, metric=metric)
    with tempfile.TemporaryDirectory() as folder:
        paths = {level: Path(folder, f"{level}.onnx") for level in LEVELS}
        tried = []
        for level, path in paths.items():
            tell(f"measuring {level} ...")
            tried.append(_measured(original, path, level, tune, tell))
        memory = _memory(original, [path for path in paths.values() if path.exists()], tell)
    levels = (replace(each, memory=memory.get(paths[each.level])) for each in tried)
    return Comparison(memory.get(original.path), original.own_figure, tuple(levels))


def _measured(
    original: Original, path: Path, level: str, tune: bool, tell: Callable[[str], None]
) -> Compared:
    try:
        report = write_level(original, path, level, tune=tune and level in KEEPING, tell=tell)
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

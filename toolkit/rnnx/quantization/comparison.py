"""All levels side by side: what each would cost, before one is chosen. Nothing is kept."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rnnx.quantization.calibration import Calibration
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.quantizer import quantize
from rnnx.quantization.report import QuantizationReport
from rnnx.starting import starts
from rnnx_runtime.contract import load_contract
from rnnx_runtime.errors import InputError, QuantizationError


@dataclass(frozen=True, slots=True)
class Compared:
    """What a level would cost.

    Attributes:
        level: its name.
        report: what quantizing measured; None where the level changes nothing.
        reason: why it changes nothing.
        memory: bytes that opening the file and a first call take beyond the imports.
    """

    level: str
    report: QuantizationReport | None
    reason: str
    memory: float | None


def compare_levels(
    src: str | os.PathLike[str],
    *,
    calibration: Calibration | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[float, list[Compared]]:
    """Quantize an artifact to every level, and measure each.

    Args:
        src: the artifact.
        calibration: as `quantize` takes it.
        tell: is told what is being done.

    Returns:
        The memory that the artifact itself takes, and what each level would cost.

    Raises:
        ArtifactError: `src` is missing, not ONNX, or damaged.
        InputError: the calibration data does not fit, or `src` is a folder.
    """
    if Path(src).is_dir():
        raise InputError(
            f"{os.fspath(src)!r} is a folder of an encoder-decoder",
            hint="Compare each of its two files by itself.",
        )
    chunk = load_contract(src).first_chunk
    with tempfile.TemporaryDirectory() as folder:
        tried = {}
        for level in LEVELS:
            tell(f"measuring {level} ...")
            tried[level] = _quantized(src, Path(folder) / f"{level}.onnx", level, calibration)
        paths = [os.fspath(src)]
        paths += [f"{folder}/{level}.onnx" for level, (report, _) in tried.items() if report]
        tell(f"starting each of {len(paths)} files a few times ...")
        own, *memories = (start.memory for start in starts(paths, chunk=chunk, batch=1))
    kept = iter(memories)
    return own, [
        Compared(level, report, reason, next(kept) if report else None)
        for level, (report, reason) in tried.items()
    ]


def _quantized(
    src: str | os.PathLike[str], dst: Path, level: str, calibration: Calibration | None
) -> tuple[QuantizationReport | None, str]:
    try:
        return quantize(src, dst, level=level, calibration=calibration), ""
    except QuantizationError as error:
        return None, str(error)

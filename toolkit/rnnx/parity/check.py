"""`check`: every probe that fits the artifact, against the torch model, as one report."""

from __future__ import annotations

import math
import os
import platform
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from rnnx.parity import chunked, sequence
from rnnx.parity.reference import Reference
from rnnx.parity.report import Report
from rnnx_exporters.compare import ATOL, RTOL
from rnnx_runtime import Model
from rnnx_runtime.errors import InputError

# Batch and frames of each run: one of each alone, and lengths that share no factor.
SIZES = ((2, 16), (1, 1), (3, 23))


def check(
    path: str | os.PathLike[str],
    model: torch.nn.Module,
    args: tuple[Any, ...] | None = None,
    *,
    rtol: float = RTOL,
    atol: float = ATOL,
    seed: int = 0,
) -> Report:
    """Hold an artifact against its torch model.

    Args:
        path: the artifact.
        model: the network it was exported from; copied, and run in eval mode.
        args: example arguments; needed only where the artifact does not record how to call it.
        rtol, atol: pass where |artifact - torch| <= atol + rtol * |torch|, element by element.
        seed: of the random inputs and states.

    Returns:
        A report; `report.passed` is the verdict.

    Raises:
        ArtifactError: the file is not an artifact.
        InputError: the model does not take or return what the artifact does.
    """
    if not all(0 <= tolerance < math.inf for tolerance in (rtol, atol)):
        raise InputError(
            f"a tolerance must be a number of 0 or more; rtol is {rtol}, atol is {atol}",
            hint=f"Leave them out for rtol {RTOL:g} and atol {ATOL:g}.",
        )
    artifact = Model(path)
    reference = Reference(model, artifact.contract, args)
    rng = np.random.default_rng(seed)
    findings = list(sequence.probe(artifact, reference, rng, SIZES, rtol, atol))
    if artifact.contract.streaming:
        findings += chunked.probe(artifact, reference, rng, rtol, atol)
    return Report(os.fspath(path), tuple(findings), seed, _versions())


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": ort.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }

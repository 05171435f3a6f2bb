"""`check`: every probe that fits the artifact, against the torch model, as one report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from rnnx.hashing import sha256_of_file
from rnnx.parity.gate import gate_for
from rnnx.parity.probes import PROBES
from rnnx.parity.reference import TorchReference
from rnnx.parity.report import Finding, Report
from rnnx.parity.surroundings import machine, versions
from rnnx.parity.trial import Trial
from rnnx_exporters.compare import ATOL, RTOL
from rnnx_runtime import Model
from rnnx_runtime.errors import ArtifactError, InputError


def check(
    path: str | os.PathLike[str],
    model: torch.nn.Module,
    args: tuple[Any, ...] | None = None,
    *,
    rtol: float = RTOL,
    atol: float | Mapping[str, float] = ATOL,
    snr_db: float | None = None,
    agreement: float | None = None,
    chunk: int | None = None,
    batch: int = 1,
    probes: Iterable[str] | None = None,
    seed: int = 0,
) -> Report:
    """Hold an artifact against its torch model.

    Args:
        path: the artifact.
        model: the network it was exported from; copied, and run in eval mode, in float32 and in
            float64.
        args: example arguments; needed only where the artifact does not record how to call it.
        rtol, atol: pass where |artifact - torch| <= atol + rtol * |torch|, element by element, and
            what torch's own float32 is off allows besides. `atol` may be a number for each output.
        snr_db: what a quantized artifact must reach instead, in dB; 30 where it is left out.
        agreement: the least share of places where the largest value along the last axis of a
            quantized artifact's output is the same one.
        chunk, batch: frames and sequences of a call as deployed.
        probes: the names of those to run; all that fit where they are left out.
        seed: of the random inputs and states.

    Returns:
        A report; `report.passed` is the verdict.

    Raises:
        ArtifactError: the file is not an artifact.
        InputError: the model does not take or return what the artifact does, or an argument does
            not fit.
    """
    artifact = Model(path)
    gate = gate_for(artifact.contract, rtol, atol, snr_db, agreement)
    reference = TorchReference(model, artifact.contract, args)
    exact = TorchReference(model, artifact.contract, args, torch.float64)
    trial = Trial(artifact, reference, exact, gate, seed=seed, chunk=chunk, batch=batch)
    findings, skipped = run_probes(trial, probes)
    return Report(
        os.fspath(path),
        tuple(findings),
        seed,
        versions(),
        tuple(trial.notes),
        skipped,
        sha256_of_file(path),
        machine(artifact.session),
        tuple(trial.evidence.values()),
    )


def run_probes(
    trial: Trial, names: Iterable[str] | None = None
) -> tuple[list[Finding], dict[str, str]]:
    """The findings of the probes that fit, and why the others do not.

    Raises:
        InputError: there is no probe of that name.
    """
    chosen = list(PROBES if names is None else names)
    unknown = [name for name in chosen if name not in PROBES]
    if unknown:
        raise InputError(
            f"there is no probe {unknown[0]!r}", hint=f"Choose from {', '.join(PROBES)}."
        )
    findings: list[Finding] = []
    skipped: dict[str, str] = {}
    for name in chosen:
        module = PROBES[name]
        reason = module.unfit(trial) if hasattr(module, "unfit") else None
        if reason is None:
            findings += _findings(trial, name)
        else:
            skipped[name] = reason
    return findings, skipped


def _findings(trial: Trial, name: str) -> Iterator[Finding]:
    try:
        yield from PROBES[name].probe(trial)
    except ArtifactError as error:  # an artifact that does not run is not equal
        yield trial.verdict(name, trial.contract.outputs[0].name, {}, str(error))

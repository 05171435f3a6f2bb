"""`check`: every probe that fits the artifact, against torch or another artifact, as one report."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnx.parity.folder import check_folder
from rnnx.parity.gate import gate_for
from rnnx.parity.metric import Metric
from rnnx.parity.onnx_reference import OnnxReference
from rnnx.parity.probes import PROBES
from rnnx.parity.recordings import Recording, read_recordings
from rnnx.parity.report import Finding, Report
from rnnx.parity.surroundings import machine, versions
from rnnx.parity.trial import Reference, Trial
from rnnx.runs import Runs
from rnnx_exporters.compare import ATOL, RTOL
from rnnx_runtime import Contract, Model
from rnnx_runtime.errors import ArtifactError, InputError
from rnnx_runtime.files import sha256_of_file

if TYPE_CHECKING:
    import torch

    from rnnx.parity.location import Location


def check(
    path: str | os.PathLike[str],
    model: torch.nn.Module | str | os.PathLike[str],
    args: tuple[Any, ...] | None = None,
    *,
    inputs: Runs | None = None,
    metric: Metric | None = None,
    rtol: float = RTOL,
    atol: float | Mapping[str, float] = ATOL,
    snr_db: float | None = None,
    agreement: float | None = None,
    chunk: int | None = None,
    batch: int = 1,
    probes: Iterable[str] | None = None,
    locate: bool = False,
    seed: int = 0,
) -> Report:
    """Hold an artifact against its torch model, or against another artifact.

    Args:
        path: the artifact, or the folder of an encoder-decoder.
        model: the network it was exported from; copied, and run in eval mode, in float32 and in
            float64. Or the path of another artifact of the same network, which needs no torch and
            has no float64: the source of a quantized one, the offline one of a stream, another
            version. A folder is held against a folder.
        args: example arguments; needed only where the artifact does not record how to call it.
        inputs: your own sequences, which the probes `recorded` and `metric` run; all others run
            random inputs. An array `[batch, time, ...]` as the contract's input says, arrays by
            input name, the path of an `.npy` or `.npz` file of these, or an iterable of them.
        metric: a figure of the outputs over your own sequences, with its limits.
        rtol, atol: pass where |artifact - reference| <= atol + rtol * |reference|, element by
            element, and what torch's own float32 is off allows besides. `atol` may be a number for
            each output; under `""` stands that of all others.
        snr_db: what a quantized artifact must reach instead, in dB; 30 where it is left out.
        agreement: the least share of places where the largest value along the last axis of a
            quantized artifact's output is the same one.
        chunk, batch: frames and sequences of a call as deployed.
        probes: the names of those to run; all that fit where they are left out.
        locate: whether to find the block of the artifact's graph that leaves the torch model first.
        seed: of the random inputs and states.

    Returns:
        A report; `report.passed` is the verdict.

    Raises:
        ArtifactError: a file is not an artifact.
        InputError: the reference does not take or return what the artifact does, or an argument
            does not fit.
    """
    if Path(path).is_dir():
        if (
            inputs is not None
            or metric is not None
            or locate
            or not isinstance(model, str | os.PathLike)
        ):
            raise InputError(
                f"{os.fspath(path)!r} is a folder: an encoder-decoder is held against another"
                " folder, on random inputs",
                hint="Give the folder of the one it was made from, without inputs of your own.",
            )
        tolerance = partial(check, rtol=rtol, atol=atol, snr_db=snr_db, agreement=agreement)
        return check_folder(partial(tolerance, probes=probes, seed=seed), path, model)
    artifact = Model(path)
    gate = gate_for(artifact.contract, rtol, atol, snr_db, agreement)
    reference, exact = _references(model, artifact.contract, args)
    trial = Trial(
        artifact,
        reference,
        exact,
        gate,
        seed=seed,
        chunk=chunk,
        batch=batch,
        recordings=_recordings(inputs, artifact.contract, metric),
        metric=metric,
    )
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
        _location(trial, reference, exact) if locate else None,
    )


def _references(
    model: torch.nn.Module | str | os.PathLike[str],
    contract: Contract,
    args: tuple[Any, ...] | None,
) -> tuple[Reference, Reference | None]:
    """The reference, and the same in float64 where there is one."""
    if isinstance(model, str | os.PathLike):
        return OnnxReference(model, contract), None
    import torch

    from rnnx.parity.reference import TorchReference

    return (
        TorchReference(model, contract, args),
        TorchReference(model, contract, args, torch.float64),
    )


def _recordings(
    inputs: Runs | None, contract: Contract, metric: Metric | None
) -> tuple[Recording, ...]:
    if inputs is not None:
        return read_recordings(inputs, contract, has_metric=metric is not None)
    if metric is not None:
        raise InputError(
            f"the metric {metric.name!r} has no sequences to be measured on",
            hint="Give them as inputs (--inputs FILE).",
        )
    return ()


def _location(trial: Trial, reference: Reference, exact: Reference | None) -> Location:
    if exact is None:
        raise InputError(
            "only a torch model tells what its blocks compute; another artifact does not",
            hint="Check against the model that the artifact was exported from.",
        )
    from rnnx.parity.locate import locate
    from rnnx.parity.reference import TorchReference

    assert isinstance(reference, TorchReference)
    assert isinstance(exact, TorchReference)
    return locate(trial, reference, exact)


def run_probes(
    trial: Trial, names: Iterable[str] | None = None
) -> tuple[list[Finding], dict[str, str]]:
    """The findings of the probes that fit, and why the others do not.

    Those of the user's own data are left out where there is none, unless they are named.

    Raises:
        InputError: there is no probe of that name.
    """
    own = {"recorded": bool(trial.recordings), "metric": trial.metric is not None}
    chosen = [name for name in PROBES if own.get(name, True)] if names is None else list(names)
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

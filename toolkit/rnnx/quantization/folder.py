"""Quantizes an encoder-decoder: both files of its folder, under one contract."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from rnnx.quantization.report import INVARIANCE, QuantizationReport
from rnnx_exporters.seq2seq_folder import GREEDY, replacing_folder
from rnnx_runtime.files import sha256_of_file
from rnnx_runtime.seq2seq import CONTRACT, ENCODER, STEP, load_seq2seq_contract

_WEAKER = list(INVARIANCE)


def quantize_folder(
    quantize_file: Callable[[Path, Path], QuantizationReport],
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
) -> QuantizationReport:
    """Write the encoder-decoder in the folder `src` to the folder `dst`, each file quantized.

    Args:
        quantize_file: quantizes one file into another.
        src: a folder that `rnnx.export_seq2seq` wrote.
        dst: a new or empty folder, or one with an earlier export.

    Returns:
        One report of both files: outputs as `encoder.m000` and `step.logits`, the weaker
        invariance; chunk, batch, agreement and time are the step's. What level auto measured of
        each is left out, but for the reasons.

    Raises:
        ArtifactError: `src` is no encoder-decoder, or `dst` holds something else.
        QuantizationError: nothing would change in one of the files.
    """
    contract = load_seq2seq_contract(src)
    with replacing_folder(dst) as beside:
        reports = {name: quantize_file(Path(src, name), beside / name) for name in (ENCODER, STEP)}
        fingerprints = {name: sha256_of_file(beside / name) for name in reports}
        contract = dataclasses.replace(contract, fingerprints=fingerprints, checked={})
        (beside / CONTRACT).write_text(contract.to_json(), encoding="utf-8")
    report = _together(reports)
    if Path(src, GREEDY).exists():
        note = f"{GREEDY} is not carried over: it holds the weights as they were."
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return report


def _together(reports: Mapping[str, QuantizationReport]) -> QuantizationReport:
    changed: Counter[str] = Counter()
    snr: dict[str, float] = {}
    for name, report in reports.items():
        changed.update(report.changed)
        snr |= {f"{Path(name).stem}.{port}": value for port, value in report.snr_db.items()}
    return dataclasses.replace(
        reports[STEP],
        source_bytes=sum(report.source_bytes for report in reports.values()),
        output_bytes=sum(report.output_bytes for report in reports.values()),
        changed=dict(sorted(changed.items())),
        snr_db=snr,
        bits={},
        chosen=None,
        front=(),
        levels=(),
        reasons=tuple(
            f"{Path(name).stem}: {reason}"
            for name, report in reports.items()
            for reason in report.reasons
        ),
        invariance=max((report.invariance for report in reports.values()), key=_WEAKER.index),
        notes=tuple(dict.fromkeys(note for one in reports.values() for note in one.notes)),
    )

"""The door: one artifact in, a smaller one out, and a report of what that cost."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rnnx.quantization.calibration import (
    Calibration,
    Feeds,
    random_calibration,
    read_calibration,
)
from rnnx.quantization.change import Change, Given, nothing
from rnnx.quantization.folder import quantize_folder
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.observing import hessians
from rnnx.quantization.quality import measure_quality, measure_step_time, open_runner
from rnnx.quantization.report import QuantizationReport
from rnnx_exporters.artifact import load_graph, seal
from rnnx_exporters.describe import describe
from rnnx_exporters.step_record import attach_step
from rnnx_runtime.contract import METADATA_KEY, Contract, load_contract
from rnnx_runtime.errors import InputError, QuantizationError
from rnnx_runtime.files import replacing

_SLOWER = 1.1  # what cannot be taken for noise

# What names of quantized operators hold: DynamicQuantizeLSTM, QLinearConv, MatMulNBits, ...
_QUANTIZED = ("quantize", "qlinear", "integer", "nbits")


def quantize(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    level: str = "int8",
    calibration: Calibration | None = None,
) -> QuantizationReport:
    """Write `src` to `dst` with smaller weights, and measure what that costs.

    Both are run on the same inputs before `dst` is written: a streaming artifact frame after frame,
    any other whole.

    Args:
        src: an artifact, or any ONNX file that onnxruntime runs, in one file; or the folder of an
            encoder-decoder, which becomes the folder `dst`.
        dst: where the smaller one goes; the contract's inputs, outputs and states stay the same.
        level: `"fp16-store"`, `"int8-store"`, `"int8"`, `"int8-block"` or `"int4"`.
        calibration: what to measure on: an array `[batch, time, ...]` as the contract's input says,
            arrays by input name, the path of an `.npy` or `.npz` file of these, or an iterable of
            any of them. Without it, random inputs.

    Raises:
        InputError: `level` is unknown, or the calibration data does not fit.
        ArtifactError: `src` is missing, not ONNX, or damaged; `dst` has no folder.
        QuantizationError: nothing would change, `src` is quantized already, or the result gives NaN
            or infinity. Nothing is written.
    """
    apply = _level(level)
    if Path(src).is_dir():
        _refuse_data(calibration)
        return quantize_folder(partial(quantize, level=level), src, dst)
    model = load_graph(src)
    contract = _contract(model, src)
    _refuse_unusable(model, contract, src)
    runs = _runs(calibration, contract)
    original = open_runner(src, contract)
    real = runs if calibration is not None else []
    observed = partial(hessians, src, contract, real) if real else nothing
    apply = partial(apply, given=Given(observed=observed, streaming=contract.streaming))
    change = _applied(apply, model, f"level {level!r} would change nothing in {os.fspath(src)!r}")
    record = _record(level, change, is_random=calibration is None)
    with replacing(dst) as beside:
        _write(model, contract, record, beside)
        quantized = open_runner(beside, contract)
        record["snr_db"], notes = measure_quality(original, quantized, runs)
        report = QuantizationReport(
            **record,
            source_bytes=Path(src).stat().st_size,
            output_bytes=_write(model, contract, record, beside),
            step_time_ratio=measure_step_time(original, quantized, runs),
            notes=(*change.notes, *notes),
        )
    return dataclasses.replace(report, notes=(*report.notes, *_advice(report)))


def _level(level: str) -> Callable[..., Change]:
    if level not in LEVELS:
        raise InputError(f"there is no level {level!r}", hint=f"Choose one of {', '.join(LEVELS)}.")
    return LEVELS[level]


def _refuse_data(calibration: Calibration | None) -> None:
    if calibration is not None:
        raise InputError(
            "an encoder-decoder is measured on random inputs only",
            hint="Leave the calibration data out, or quantize each file by itself.",
        )


def _contract(model: ir.Model, path: str | os.PathLike[str]) -> Contract:
    """The artifact's contract, or, for ONNX from elsewhere, its inputs and outputs as they are."""
    if METADATA_KEY in model.metadata_props:
        return load_contract(path)
    return describe(model)


def _runs(calibration: Calibration | None, contract: Contract) -> list[Feeds]:
    if calibration is None:
        return random_calibration(contract)
    return read_calibration(calibration, contract)


def _refuse_unusable(model: ir.Model, contract: Contract, path: str | os.PathLike[str]) -> None:
    quantized = {node.op_type for node in model.graph.all_nodes() if _is_quantized(node)}
    if contract.quantization or quantized:
        level = (contract.quantization or {}).get("level") or ", ".join(sorted(quantized))
        raise QuantizationError(
            f"{os.fspath(path)!r} is quantized already ({level})",
            hint="Quantize the float32 artifact it was made from.",
        )


def _is_quantized(node: ir.Node) -> bool:
    return any(part in node.op_type.lower() for part in _QUANTIZED)


def _applied(apply: Callable[[ir.Model], Change], model: ir.Model, failure: str) -> Change:
    change = apply(model)
    if not change.changed:
        reason = " ".join(change.notes) or "It has no float32 weight of a layer rnnx knows."
        raise QuantizationError(
            f"{failure}. {reason}",
            hint="Weights of RNN, GRU, LSTM, MatMul, Gemm, Gather, Conv and ConvTranspose become"
            " smaller where they are float32 initializers.",
        )
    return change


def _record(level: str, change: Change, *, is_random: bool) -> dict[str, Any]:
    """What the contract says of the quantization, but for what is measured later."""
    return {
        "level": level,
        "changed": dict(sorted(change.changed.items())),
        "reduced_range": change.reduced_range,
        "measured_on": "random inputs" if is_random else "calibration data",
    }


def _write(model: ir.Model, contract: Contract, record: dict[str, Any], path: Path) -> int:
    """Write the graph, with its contract where it has one; the file's size in bytes.

    What the last check measured was measured on another graph, so it does not stay.
    """
    if METADATA_KEY in model.metadata_props:
        sealed = dataclasses.replace(contract, quantization=dict(record), checked=None)
        attach_step(model, seal(model, sealed))
    ir.save(model, path)
    return path.stat().st_size


def _advice(report: QuantizationReport) -> list[str]:
    advice = []
    if report.measured_on == "random inputs":
        advice.append("Measured on random inputs: give calibration data to measure on yours.")
    if report.reduced_range is not None and report.step_time_ratio > _SLOWER:
        advice.append("A step is slower than before: int8-store is as small, at float32 speed.")
    if report.output_bytes >= report.source_bytes:
        advice.append("The file is no smaller: the network is too small to gain from this.")
    return advice

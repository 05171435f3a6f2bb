"""The door: one artifact in, a smaller one out, and a report of what that cost."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rnnx.quantization.budget import Budget
from rnnx.quantization.calibration import (
    Calibration,
    Feeds,
    in_batches,
    random_calibration,
    read_calibration,
)
from rnnx.quantization.change import Change, Given, nothing
from rnnx.quantization.folder import quantize_folder
from rnnx.quantization.invariance import prove_invariance
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.observing import hessians
from rnnx.quantization.quality import measure_quality, measure_step_time, open_runner
from rnnx.quantization.report import QuantizationReport
from rnnx.quantization.search import search
from rnnx.quantization.tuning import choose_ways
from rnnx.quantization.writing import sealed, write
from rnnx_exporters.artifact import load_graph
from rnnx_exporters.describe import describe
from rnnx_runtime.contract import METADATA_KEY, Contract, load_contract
from rnnx_runtime.errors import InputError, QuantizationError
from rnnx_runtime.files import replacing
from rnnx_runtime.model import size_along

_BY_SIZE: tuple[dict[str, str], list[str]] = ({}, [])  # no layer has a way of its own
AUTO = "auto"
_SLOWER = 1.1  # what cannot be taken for noise

# What names of quantized operators hold: DynamicQuantizeLSTM, QLinearConv, MatMulNBits, ...
_QUANTIZED = ("quantize", "qlinear", "integer", "nbits")


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
    tell: Callable[[str], None] = lambda text: None,
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
            Without it, random inputs.
        chunk: frames that are fed at a time where it is deployed; without it, as few as can be run,
            mostly one.
        batch: sequences that advance together where it is deployed; without it, as many as each run
            of the calibration data holds, of random inputs one where it streams, else two.
        tune: time on this device, at that chunk and batch, every way to compute each recurrent
            layer, and take the fastest, instead of going by its size; float32 where none gains.
        budget: for `"auto"`: `"snr=35"`, the least SNR in dB of any output and state on these
            runs, or `"size=200KB"`, the most the file may take. Each matrix of each layer, and of
            GRU and LSTM the gates and the candidate, gets its own bits (see `search`).
        tell: is told what is being done.

    Raises:
        InputError: `level` is unknown, the calibration data does not fit, or `src` cannot run such
            chunks or batches, or there is nothing to tune.
        ArtifactError: `src` is missing, not ONNX, or damaged; `dst` has no folder.
        QuantizationError: nothing would change, `src` is quantized already, the result gives NaN or
            infinity, or the level does not hold what it promises. Nothing is written.
    """
    _refuse_unknown(level)
    wanted = _budget(level, budget, tune)
    if Path(src).is_dir():
        _refuse_data(calibration)
        options: dict[str, Any] = {"chunk": chunk, "batch": batch, "tune": tune, "budget": budget}
        options["tell"] = tell
        return quantize_folder(partial(quantize, level=level, **options), src, dst)
    model = load_graph(src)
    contract = _contract(model, src)
    _refuse_unusable(model, contract, src)
    chunk = _chunk(contract, chunk)
    runs = _runs(calibration, contract, batch)
    ways, timed = _BY_SIZE
    if tune:
        ways, timed = choose_ways(src, contract, LEVELS[level], runs[0], chunk, tell)
    observed = nothing if calibration is None else partial(hessians, src, contract, runs)
    given = Given(observed=observed, streaming=contract.streaming, ways=ways)
    found = wanted and search(src, contract, given, wanted, runs, chunk, tell)
    apply = found.apply if found else lambda each: LEVELS[level](each, given)
    change = _applied(apply, model, level, src)
    record: dict[str, Any] = {
        "level": level,
        "changed": dict(sorted(change.changed.items())),
        "measured_on": "random inputs" if calibration is None else "calibration data",
        "chunk": chunk,
        "batch": size_along(contract, runs[0], "batch") or 1,
    }
    if found:
        record |= {"budget": budget, "bits": dict(found.chosen.bits)}
    original, told = open_runner(src, contract), sealed(model, contract)
    with replacing(dst) as beside:
        write(model, told, record, beside)
        quantized = open_runner(beside, contract)
        quality = measure_quality(original, quantized, contract, runs, chunk)
        invariance, rounding = prove_invariance(
            original, quantized, contract, runs, change.invariance, chunk
        )
        record |= {
            "snr_db": quality.snr_db,
            "agreement": quality.agreement,
            "invariance": invariance,
        }
        report = QuantizationReport(
            **record,
            source_bytes=Path(src).stat().st_size,
            output_bytes=write(model, told, record, beside),
            step_time_ratio=measure_step_time(original, quantized, runs, chunk),
            notes=(*timed, *change.notes, *quality.notes, *rounding),
            chosen=found.chosen if found else None,
            front=found.front if found else (),
            reasons=found.reasons if found else (),
        )
    advice = _advice(report, computes=any(map(_is_quantized, model.graph.all_nodes())))
    return dataclasses.replace(report, notes=(*report.notes, *advice))


def _refuse_unknown(level: str) -> None:
    names = (*LEVELS, AUTO)
    if level not in names:
        raise InputError(f"there is no level {level!r}", hint=f"Choose one of {', '.join(names)}.")


def _budget(level: str, budget: str | None, tune: bool) -> Budget | None:
    if (level == AUTO) != (budget is not None):
        raise InputError(
            "a budget and the level auto come together",
            hint="Give level auto and a budget such as snr=35 or size=200KB, or neither.",
        )
    if budget is not None and tune:
        raise InputError(
            "the level auto keeps weights small and has nothing to tune",
            hint="Tune one of the levels int8, int8-block or int4.",
        )
    return None if budget is None else Budget.parse(budget)


def _refuse_data(calibration: Calibration | None) -> None:
    if calibration is not None:
        raise InputError(
            "an encoder-decoder is measured on random inputs only: its two files take other inputs",
            hint="Leave the calibration data out. To see what a level costs on yours, compare the"
            " levels for each file by itself.",
        )


def _contract(model: ir.Model, path: str | os.PathLike[str]) -> Contract:
    """The artifact's contract, or, for ONNX from elsewhere, its inputs and outputs as they are."""
    if METADATA_KEY in model.metadata_props:
        return load_contract(path)
    return describe(model)


def _chunk(contract: Contract, chunk: int | None) -> int | None:
    """Frames fed at a time; None for an artifact that takes whole sequences."""
    least = contract.chunk_multiple
    if chunk is None:
        return least if contract.streaming else None
    if not contract.streaming:
        raise InputError(
            "the artifact takes whole sequences, no chunks",
            hint="Leave the chunk out, or export it with streaming=True.",
        )
    if chunk < 1 or chunk % least:
        raise InputError(
            f"a call of {chunk} frames is not always a run of the network",
            hint=f"Give a multiple of {least}.",
        )
    return chunk


def _runs(calibration: Calibration | None, contract: Contract, batch: int | None) -> list[Feeds]:
    if batch is not None:
        _refuse_batch(contract, batch)
    if calibration is None:
        return random_calibration(contract, batch)
    runs = read_calibration(calibration, contract)
    return runs if batch is None else in_batches(runs, contract, batch)


def _refuse_batch(contract: Contract, batch: int) -> None:
    if batch < 1 or (batch > 1 and not contract.has_free_batch):
        raise InputError(
            f"the artifact cannot run {batch} sequences at once",
            hint="Leave the batch out: it runs one." if batch > 1 else "Give one or more.",
        )


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


def _applied(
    apply: Callable[[ir.Model], Change],
    model: ir.Model,
    level: str,
    path: str | os.PathLike[str],
) -> Change:
    change = apply(model)
    if not change.changed:
        reason = " ".join(change.notes) or "It has no float32 weight of a layer rnnx knows."
        raise QuantizationError(
            f"level {level!r} would change nothing in {os.fspath(path)!r}. {reason}",
            hint="Weights of RNN, GRU, LSTM, MatMul, Gemm, Gather, Conv and ConvTranspose become"
            " smaller where they are float32 initializers.",
        )
    return change


def _advice(report: QuantizationReport, *, computes: bool) -> list[str]:
    advice = []
    if report.measured_on == "random inputs":
        advice.append("Measured on random inputs: give calibration data to measure on yours.")
    if computes and report.step_time_ratio > _SLOWER:
        advice.append("A step is slower than before: int8-store is as small, at float32 speed.")
    if report.output_bytes >= report.source_bytes:
        advice.append("The file is no smaller: the network is too small to gain from this.")
    return advice

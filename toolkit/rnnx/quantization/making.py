"""Makes a smaller artifact of another, and writes it with what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rnnx.quantization.change import Change
from rnnx.quantization.original import Original, is_quantized
from rnnx.quantization.quality import Quality, Runner
from rnnx.quantization.writing import sealed, write
from rnnx_exporters.artifact import load_graph
from rnnx_runtime.contract import Contract
from rnnx_runtime.errors import QuantizationError

Apply = Callable[[ir.Model], Change]


@dataclass(frozen=True, slots=True)
class Made:
    """A smaller artifact.

    Attributes:
        change: what was done to the graph.
        runner: the file, open.
    """

    change: Change
    runner: Runner
    _model: ir.Model
    _contract: Contract | None

    def write(self, record: Mapping[str, Any], path: Path) -> int:
        """Write it with what is known of its quantization; the file's size in bytes."""
        return write(self._model, self._contract, record, path)

    @property
    def computes(self) -> bool:
        """Whether it computes with quantized numbers."""
        return any(map(is_quantized, self._model.graph.all_nodes()))


def make(original: Original, level: str, apply: Apply, path: Path) -> Made:
    """Write `original` to `path`, changed, and open it.

    Raises:
        QuantizationError: nothing would change.
    """
    model = load_graph(original.path)
    change = apply(model)
    if not change.changed:
        raise _unchanged(level, original.path, change)
    contract = sealed(model, original.contract)
    write(model, contract, {"level": level}, path)
    return Made(change, original.open(path), model, contract)


def record_of(
    original: Original, made: Made, level: str, quality: Quality, figure: float | None
) -> dict[str, Any]:
    """What the contract and the report tell of it."""
    record: dict[str, Any] = {
        "level": level,
        "changed": dict(sorted(made.change.changed.items())),
        "measured_on": original.measured_on,
        "chunk": original.chunk,
        "batch": original.sequences,
        "snr_db": quality.snr_db,
        "agreement": quality.agreement,
    }
    if original.metric is not None:
        record |= {"metric": original.metric.name, "figure": figure}
    return record


def _unchanged(level: str, path: Path, change: Change) -> QuantizationError:
    reason = " ".join(change.notes) or "It has no float32 weight of a layer rnnx knows."
    return QuantizationError(
        f"level {level!r} would change nothing in {str(path)!r}. {reason}",
        hint="Weights of RNN, GRU, LSTM, MatMul, Gemm, Gather, Conv and ConvTranspose become"
        " smaller where they are float32 initializers.",
    )

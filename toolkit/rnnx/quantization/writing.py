"""Writes a quantized graph with its contract, where it has one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from rnnx.quantization.compact import compact
from rnnx_exporters.artifact import seal
from rnnx_exporters.step_record import attach_step
from rnnx_runtime.contract import METADATA_KEY, Contract


def sealed(model: ir.Model, contract: Contract) -> Contract | None:
    """The contract of the changed graph, where it has one; what was checked was another graph."""
    compact(model)
    if METADATA_KEY not in model.metadata_props:
        return None
    changed = seal(model, dataclasses.replace(contract, checked=None))
    attach_step(model, changed)
    return changed


def write(model: ir.Model, contract: Contract | None, record: Mapping[str, Any], path: Path) -> int:
    """Write the graph, and what is known of its quantization so far; the file's size in bytes."""
    if contract is not None:
        told = dataclasses.replace(contract, quantization=dict(record))
        model.metadata_props[METADATA_KEY] = told.to_json()
    ir.save(model, path)
    return path.stat().st_size

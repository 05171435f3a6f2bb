"""Reads and writes artifacts: ONNX graphs that carry a contract, written whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections import Counter
from pathlib import Path

import onnx_ir as ir

from rnnx_runtime.contract import METADATA_KEY, Contract
from rnnx_runtime.errors import ArtifactError
from rnnx_runtime.files import replacing


def load_graph(path: str | os.PathLike[str]) -> ir.Model:
    """The ONNX file at `path` as a graph, its weights read wherever they lie.

    Raises:
        ArtifactError: the file is missing or not ONNX, or a file of its weights is missing.
    """
    file = Path(path)
    if not file.is_file():
        raise ArtifactError(f"no file at {str(file)!r}", hint="Check the path.")
    try:
        return ir.external_data.load_to_model(ir.load(file))
    except Exception as error:  # protobuf and onnx-ir raise unrelated classes
        raise ArtifactError(
            f"{str(file)!r} is not an ONNX file: {type(error).__name__}",
            hint="Give the file that `rnnx export` wrote.",
        ) from error


def seal(model: ir.Model, contract: Contract) -> Contract:
    """The contract with the graph's operators and fingerprint, put into the graph's metadata."""
    model.metadata_props.pop(METADATA_KEY, None)
    sealed = dataclasses.replace(
        contract, operators=count_operators(model), fingerprint=fingerprint(model)
    )
    model.metadata_props[METADATA_KEY] = sealed.to_json()
    return sealed


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write the graph to `path`, whole or not at all."""
    with replacing(path) as beside:
        ir.save(model, beside)


def count_operators(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs, subgraphs included, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.all_nodes()).most_common())


def fingerprint(model: ir.Model) -> str:
    """SHA-256 over the graph and its weights, in hex."""
    proto = ir.to_proto(model)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()

"""Reads and writes artifacts: ONNX graphs that carry a contract, written whole or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx_ir as ir

from rnnx_runtime.contract import METADATA_KEY, Contract
from rnnx_runtime.errors import ArtifactError
from rnnx_runtime.files import writable
from rnnx_runtime.step import METADATA_KEY as STEP_KEY

# What fits in one protobuf message beside the graph itself.
MOST_BYTES = (2 << 30) - (64 << 20)


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
    for key in (METADATA_KEY, STEP_KEY):
        model.metadata_props.pop(key, None)
    sealed = dataclasses.replace(
        contract, operators=count_operators(model), fingerprint=fingerprint(model)
    )
    model.metadata_props[METADATA_KEY] = sealed.to_json()
    return sealed


def save(model: ir.Model, path: str | os.PathLike[str]) -> None:
    """Write the graph to `path`, whole or not at all."""
    with writing(model, path):
        pass


@contextmanager
def writing(model: ir.Model, path: str | os.PathLike[str]) -> Iterator[Path]:
    """The graph written in a folder beside `path`, to be proven there; moved if nothing is raised.

    Weights of more than 2 GB stand in a second file, `{path}.data`, as protobuf asks.

    Raises:
        ArtifactError: the folder of `path` does not exist, or `path` is one itself.
    """
    target = writable(path)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        write_in(model, Path(folder), target.name)
        yield Path(folder) / target.name
        for file in sorted(Path(folder).iterdir(), key=lambda file: file.name == target.name):
            os.replace(file, target.with_name(file.name))  # the graph last: it names the weights


def write_in(model: ir.Model, folder: Path, name: str) -> None:
    """Write the graph as `name` in `folder`, large weights in a file of their own."""
    if is_large(model):
        ir.save(model, folder / name, external_data=f"{name}.data")
    else:
        ir.save(model, folder / name)


def is_large(model: ir.Model) -> bool:
    """Whether the weights are more than protobuf takes in one message."""
    weights = [value.const_value for value in model.graph.initializers.values()]
    return sum(weight.nbytes for weight in weights if weight is not None) > MOST_BYTES


def count_operators(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs, subgraphs included, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.all_nodes()).most_common())


def fingerprint(model: ir.Model) -> str:
    """SHA-256 over the graph and its weights, in hex."""
    proto = ir.to_proto(model)
    weights = list(proto.graph.initializer)
    del proto.graph.initializer[:]  # one by one, since all together may exceed protobuf's limit
    digest = hashlib.sha256(proto.SerializeToString(deterministic=True))
    for weight in weights:
        digest.update(weight.SerializeToString(deterministic=True))
    return digest.hexdigest()

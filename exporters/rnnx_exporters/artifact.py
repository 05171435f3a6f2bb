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


def load_graph(path: str | os.PathLike[str]) -> ir.Model:
    """The ONNX file at `path` as a graph.

    Raises:
        ArtifactError: the file is missing or not ONNX.
    """
    file = Path(path)
    if not file.is_file():
        raise ArtifactError(f"no file at {str(file)!r}", hint="Check the path.")
    try:
        return ir.load(file)
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


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside `path` to write; it takes the place of `path` if nothing is raised."""
    target = Path(path)
    if not target.parent.is_dir():
        raise ArtifactError(f"no folder {str(target.parent)!r} to write {target.name!r} in")
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix
    )
    os.close(handle)
    try:
        yield Path(name)
        _publish(name, target)
    except BaseException:
        os.unlink(name)
        raise


def count_operators(model: ir.Model) -> dict[str, int]:
    """How often each operator occurs, subgraphs included, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.all_nodes()).most_common())


def fingerprint(model: ir.Model) -> str:
    """SHA-256 over the graph and its weights, in hex."""
    proto = ir.to_proto(model)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def _publish(name: str, target: Path) -> None:
    """Give the file the rights a new file has (temporary files are private), then rename it."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)
    os.replace(name, target)

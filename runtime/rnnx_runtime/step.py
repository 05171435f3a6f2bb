"""The step form: a second graph in an artifact's metadata, for one sequence and one step.

It computes what the artifact's own graph does, without the operators that only give a wire another
shape; one node each costs as much as a small layer's arithmetic. Its weights are those of the
artifact, told by their places in the file. Where the file is not as it was written, another tool
has moved them: then there is no step form, and the artifact's own graph does all.

What reads the record is imported when there is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from rnnx_runtime.contract import DTYPES, MAX_BYTES
from rnnx_runtime.session import edge_options, new_session

METADATA_KEY = "rnnx.step"
_BREAK = b"\n"  # between the record and the graph
LOCATION = "the artifact"  # where the graph says that its weights are; they are handed to it


@dataclass(frozen=True, slots=True)
class Step:
    """A step form, opened.

    Attributes:
        session: the graph.
        frames: how many it takes.
        operators: how many it has.
        shapes: of all that it takes and gives, by name; the memory is that of the artifact's ports
            and states for one sequence.
        weights: what the session reads and does not own.
    """

    session: ort.InferenceSession
    frames: int
    operators: int
    shapes: Mapping[str, tuple[int, ...]]
    weights: tuple[npt.NDArray[Any], ...]


def open_step(text: str | None, path: str) -> Step | None:
    """The step form of the artifact at `path`, from the text in its metadata; None without one."""
    if text is None or len(text) > MAX_BYTES:
        return None
    try:
        return _open(*_unpacked(text), path)
    except Exception:  # whatever is wrong with it: the artifact's own graph does the same
        return None


def pack(
    graph: bytes,
    weights: Mapping[str, tuple[npt.NDArray[Any], int]],
    *,
    frames: int,
    operators: int,
) -> str:
    """The text that `open_step` reads.

    Args:
        graph: an ONNX model whose `weights` stand at `LOCATION`.
        weights: by name, each with the place of its bytes in the artifact's file.
        frames: how many the graph takes.
        operators: how many it has.
    """
    import base64
    import json
    import zlib

    record = {
        "frames": frames,
        "operators": operators,
        "weights": [
            [name, str(weight.dtype), list(weight.shape), start]
            for name, (weight, start) in weights.items()
        ],
        "sha256": _digest(weight for weight, _ in weights.values()),
    }
    head = json.dumps(record, separators=(",", ":")).encode()
    return base64.b85encode(zlib.compress(head + _BREAK + graph, 9)).decode()


def _unpacked(text: str) -> tuple[Any, bytes]:
    """The record, and the graph."""
    import base64
    import json
    import zlib

    inflater = zlib.decompressobj()
    head, _, graph = inflater.decompress(base64.b85decode(text), MAX_BYTES).partition(_BREAK)
    if not inflater.eof:
        raise ValueError("it is cut off or too large")
    return json.loads(head), graph


def _open(record: Any, graph: bytes, path: str) -> Step | None:
    data = np.memmap(path, np.uint8, mode="r")
    names = [str(name) for name, *_ in record["weights"]]
    weights = tuple(_weight(data, *place) for _, *place in record["weights"])
    if _digest(weights) != record["sha256"]:
        return None
    values = [ort.OrtValue.ortvalue_from_numpy(weight) for weight in weights]
    options = edge_options()
    options.add_external_initializers(names, values)
    session = new_session(graph, options)
    ports = (*session.get_inputs(), *session.get_outputs())
    shapes = {port.name: tuple(map(int, port.shape)) for port in ports}
    frames, operators = int(record["frames"]), int(record["operators"])
    return Step(session, frames, operators, shapes, weights)


def _weight(data: npt.NDArray[Any], dtype: str, shape: list[int], start: int) -> npt.NDArray[Any]:
    """A copy, which is aligned; in the file it need not be."""
    if dtype not in DTYPES or start < 0 or any(size < 0 for size in shape):
        raise ValueError("no place of a weight")
    stop = start + math.prod(shape) * np.dtype(dtype).itemsize
    return data[start:stop].copy().view(dtype).reshape(shape)


def _digest(weights: Any) -> str:
    import hashlib

    digest = hashlib.sha256()
    for weight in weights:
        digest.update(np.ascontiguousarray(weight).data)
    return digest.hexdigest()

"""Times on this device which way to compute each recurrent layer is the fastest."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx_ir as ir

from rnnx.bench import measure
from rnnx.quantization.calibration import Feeds
from rnnx.quantization.change import Change, Given
from rnnx.quantization.quality import open_runner
from rnnx.quantization.weights import constant_array, describe_computed
from rnnx.quantization.writing import sealed, write
from rnnx_exporters.artifact import load_graph
from rnnx_exporters.tidy import recurrent_nodes
from rnnx_runtime.contract import Contract
from rnnx_runtime.errors import InputError

_Level = Callable[[ir.Model, Given], Change]

_WAYS = {
    "float": "in float32",
    "operator": "by one quantized operator",
    "gates": "by quantized operators for its gates",
}
_SECONDS = 0.5
_GAIN = 0.95  # less than this may be noise, and float32 is the most exact


def choose_ways(
    src: str | os.PathLike[str],
    contract: Contract,
    apply: _Level,
    feeds: Feeds,
    chunk: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, str], list[str]]:
    """The fastest way to compute each recurrent layer, and what was measured, in sentences.

    Timed is the step of the whole network with that layer computed each way that the level has for
    it, and all others in float32; layers of the same size are timed together.

    Args:
        src: the artifact, in float32.
        contract: its contract.
        apply: the level.
        feeds: a run of as many sequences as will advance together.
        chunk: frames fed at a time.
        tell: is told what is being done.

    Returns:
        Ways by the names of nodes, as `Given.ways` has them.

    Raises:
        InputError: the level has no other way than float32 for any of them.
    """
    layers = _alike(load_graph(src))
    names = [name for alike in layers.values() for name in alike]
    ways, notes = dict.fromkeys(names, "float"), []
    for layer, alike in layers.items():
        tell(f"timing {layer} ...")
        candidates = {
            way: dict.fromkeys(names, "float") | dict.fromkeys(alike, way) for way in _WAYS
        }
        ratios = _ratios(src, contract, apply, candidates, feeds, chunk)
        way = _fastest(ratios)
        ways |= dict.fromkeys(alike, way)
        notes += [_described(layer, way, ratios)] if len(ratios) > 1 else []
    if not notes:
        raise InputError(
            "there is nothing to tune: this level computes none of the layers but in float32",
            hint="Leave the tuning out, or choose int8, int8-block or int4.",
        )
    return ways, notes


def _alike(model: ir.Model) -> dict[str, list[str]]:
    """The names of recurrent nodes, by what decides how long they take."""
    found = defaultdict(list)
    for node in recurrent_nodes(model):
        if node.name and describe_computed(node) is None:
            found[_size(node)].append(node.name)
    return found


def _size(node: ir.Node) -> str:
    directions, _, features = constant_array(node.inputs[1]).shape
    hidden_size = constant_array(node.inputs[2]).shape[2]
    size = f"{node.op_type} of {hidden_size} over {features} features"
    return size if directions == 1 else f"bidirectional {size}"


def _ratios(
    src: str | os.PathLike[str],
    contract: Contract,
    apply: _Level,
    candidates: Mapping[str, Mapping[str, str]],
    feeds: Feeds,
    chunk: int | None,
) -> dict[str, float]:
    """The time of a step each way that changes anything, over that in float32, which is first."""
    steps = {}
    with tempfile.TemporaryDirectory() as folder:
        for way, ways in candidates.items():
            model, path = load_graph(src), Path(folder, f"{way}.onnx")
            apply(model, Given(streaming=contract.streaming, ways=ways))
            if _is_computed(model, ways):
                write(model, sealed(model, contract), {}, path)
                steps[way] = open_runner(path, contract).step(feeds, chunk)
        return {way: timing.ratio for way, timing in measure(steps, seconds=_SECONDS).items()}


def _is_computed(model: ir.Model, ways: Mapping[str, str]) -> bool:
    """Whether the layers are computed as they should be; no way is there for every layer."""
    floats = {node.name for node in recurrent_nodes(model)}
    return all((way == "float") == (name in floats) for name, way in ways.items())


def _fastest(ratios: Mapping[str, float]) -> str:
    way = min(ratios, key=ratios.__getitem__)
    return way if ratios[way] < _GAIN else "float"


def _described(layer: str, way: str, ratios: Mapping[str, float]) -> str:
    others: Iterable[str] = (
        f"{ratio:.2f} {_WAYS[other]}" for other, ratio in ratios.items() if other != "float"
    )
    return (
        f"{layer}: computed {_WAYS[way]}; a step takes {' and '.join(others)} of what it takes in"
        " float32, timed here."
    )

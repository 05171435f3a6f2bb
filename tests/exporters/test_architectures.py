"""Networks as people write them: their streams, however cut, equal torch in float64."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import rnnx
from architectures import ARCHITECTURES, REFUSED, Architecture
from exportable import Array

TOLERANCE = 2e-5
QUICK = (
    "conv-tasnet, channel norm",
    "classifier",
    "context by shifts",
    "heads",
    "pools",
    "slow and fast",
    "sub-bands",
    "unbatched",
)


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.full)
        for name in ARCHITECTURES
    ],
)
def test_a_stream_equals_torch_in_float64(tmp_path: Path, name: str) -> None:
    architecture, path = ARCHITECTURES[name], tmp_path / "m.onnx"
    module = architecture.module()
    export(architecture, module, path)
    exact, model = copy.deepcopy(module).double(), rnnx.Model(path)
    rng = np.random.default_rng(0)
    for batch, frames in product(batches(architecture), architecture.lengths):
        args = architecture.arguments(batch, frames, seed=frames)
        wanted = [value.numpy() for value in pytree.tree_leaves(exact(*args))]
        for cuts in cuttings(frames, rng):
            hold(streamed(model, architecture, args, cuts), wanted)


def test_another_network_is_told_apart(tmp_path: Path) -> None:
    """One weight is larger by a thousandth."""
    architecture, path = ARCHITECTURES["mel"], tmp_path / "m.onnx"
    module = architecture.module()
    export(architecture, module, path)
    other, args = copy.deepcopy(module).double(), architecture.arguments(3, 24)
    other.get_parameter("gru.weight_ih_l0")[0, 0] += 1e-3
    with pytest.raises(AssertionError):
        hold(streamed(rnnx.Model(path), architecture, args, [7]), [other(*args).numpy()])


@pytest.mark.full
@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_whole_sequence_is_refused(tmp_path: Path, name: str) -> None:
    architecture, message = REFUSED[name]
    with pytest.raises(rnnx.NotStreamableError, match=message) as caught:
        export(architecture, architecture.module(), tmp_path / "m.onnx")
    assert caught.value.hint
    assert "fault in rnnx" not in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def export(architecture: Architecture, module: nn.Module, path: Path) -> rnnx.Contract:
    return rnnx.export(
        module, architecture.example(), path, dynamic_shapes=architecture.axes, streaming=True
    )


def batches(architecture: Architecture) -> tuple[int, ...]:
    free = any("batch" in axes.values() for axes in architecture.axes.values())
    return (1, 3) if free else (1,)


def cuttings(frames: int, rng: np.random.Generator) -> list[list[int]]:
    """Where to cut: nowhere, behind every frame, and at random."""
    drawn = rng.choice(frames + 1, size=min(frames // 3, 12), replace=True)
    return [[], list(range(1, frames)), sorted(int(cut) for cut in drawn)]


def streamed(
    model: rnnx.Model, architecture: Architecture, args: Sequence[Tensor], cuts: Sequence[int]
) -> list[Array]:
    """All that the stream gives of `args`, fed in pieces and flushed."""
    contract = model.contract
    ports = {port.name: port for port in contract.inputs}
    pieces: dict[str, list[Array]] = {}
    for name, value in zip(architecture.axes, args, strict=True):
        array, axis = value.numpy().astype(ports[name].dtype), ports[name].time_axis
        pieces[name] = [array] * (len(cuts) + 1) if axis is None else np.split(array, cuts, axis)
    first = contract.inputs[0]
    stream = model.stream(batch=1 if first.batch_axis is None else args[0].shape[first.batch_axis])
    results = [
        stream.feed({name: parts[place] for name, parts in pieces.items()})
        for place in range(len(cuts) + 1)
    ]
    results.append(stream.flush())
    return [joined(port, results) for port in contract.outputs]


def joined(port: rnnx.Port, results: Sequence[Array | Mapping[str, Array]]) -> Array:
    parts = [result if isinstance(result, np.ndarray) else result[port.name] for result in results]
    return parts[-1] if port.time_axis is None else np.concatenate(parts, port.time_axis)


def hold(actual: Sequence[Array], wanted: Sequence[Array]) -> None:
    for found, exact in zip(actual, wanted, strict=True):
        assert found.shape == exact.shape
        scale = max(1.0, float(np.abs(exact).max()))
        np.testing.assert_allclose(found, exact, rtol=0, atol=TOLERANCE * scale)

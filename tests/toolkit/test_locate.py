"""`check(locate=True)` names the block and the frame where a planted fault begins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import ModelProto, helper, numpy_helper
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import crnn
import faults
import rnnx
from architectures import ARCHITECTURES
from faults import Fault, edit_contract, plant
from networks import NETWORKS
from rnnx.parity.location import Location

Array = npt.NDArray[Any]

QUIET = 6  # frames of zeros before the first that is not


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The network of `crnn`, offline and streaming."""
    folder = tmp_path_factory.mktemp("crnn")
    model, args = crnn.build()
    paths = {streaming: folder / f"{streaming}.onnx" for streaming in (False, True)}
    for streaming, path in paths.items():
        rnnx.export(model, args, path, streaming=streaming)
    return paths


def locate(path: Path, **options: Any) -> Location:
    report = rnnx.check(path, crnn.build()[0], locate=True, probes=["sequence"], **options)
    assert report.location is not None
    return report.location


def quiet_start() -> Array:
    """Sequences whose first frames are zeros, `[batch, time, features]`."""
    x = np.random.default_rng(0).standard_normal((2, 20, crnn.SIZE)).astype(np.float32)
    x[:, :QUIET] = 0
    return x


def tap(position: int) -> Fault:
    """One tap of the convolution's kernel is another."""

    def fault(model: ModelProto) -> None:
        change(model, "front.weight", lambda value: value + 0.5 * _at(value, position))

    return fault


def _at(value: Array, position: int) -> Array:
    return (np.arange(value.shape[-1]) == position).astype(value.dtype)


def change(model: ModelProto, name: str, how: Callable[[Array], Array]) -> None:
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    value = np.ascontiguousarray(how(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def other_bias(name: str) -> Fault:
    return lambda model: change(model, name, lambda value: value + 0.5)


def operator(old: str, new: str) -> Fault:
    def fault(model: ModelProto) -> None:
        (node,) = (node for node in model.graph.node if node.op_type == old)
        node.op_type = new

    return fault


def gru_resets_before(model: ModelProto) -> None:
    node = faults.layer(model, 2)
    kept = [attribute for attribute in node.attribute if attribute.name != "linear_before_reset"]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute("linear_before_reset", 0)])


def cache_of_ones(model: ModelProto) -> None:
    edit_contract(model, lambda record: record["states"][0].update(fill=1.0))


def cache_a_frame_longer(model: ModelProto) -> None:
    edit_contract(model, lambda record: record["states"][0].update(start_frames=3))


class Planted(NamedTuple):
    """A fault, and where it begins: the block, its module and layer, and the frame."""

    streaming: bool
    fault: Fault
    block: str
    module: str
    layer: int | None
    step: int | None


RIGHT = {"front", "act", "into lstm.l0", "lstm.l0", "into lstm.l1", "lstm.l1", "into gru.l0"}
RIGHT |= {"gru.l0", "head"}

# Offline the states begin at zero, so that what only multiplies them shows a frame later.
PLANTED = {
    "the last tap": Planted(False, tap(2), "front", "front", None, QUIET),
    "the middle tap": Planted(False, tap(1), "front", "front", None, QUIET + 1),
    "the first tap": Planted(False, tap(0), "front", "front", None, QUIET + 2),
    "the bias of the convolution": Planted(
        False, other_bias("front.bias"), "front", "front", None, 0
    ),
    "no activation": Planted(False, operator("Relu", "Neg"), "act", "act", None, 0),
    "gates of layer 0": Planted(False, faults.roll_gates(0), "lstm.l0", "lstm", 0, 0),
    "gates of layer 1": Planted(False, faults.roll_gates(1), "lstm.l1", "lstm", 1, 0),
    "gates of the GRU": Planted(False, faults.roll_gates(2), "gru.l0", "gru", 0, 0),
    "R of layer 0 transposed": Planted(
        False, faults.weight(0, "R", faults.transpose_gates), "lstm.l0", "lstm", 0, 1
    ),
    "R of layer 1 zero": Planted(
        False, faults.weight(1, "R", np.zeros_like), "lstm.l1", "lstm", 1, 1
    ),
    "R of the GRU scaled": Planted(
        False, faults.weight(2, "R", lambda value: value * 1.1), "gru.l0", "gru", 0, 1
    ),
    "no bias in layer 1": Planted(False, faults.no_input(1, 3), "lstm.l1", "lstm", 1, 0),
    "half the bias of the GRU": Planted(
        False, faults.weight(2, "B", faults.without_half), "gru.l0", "gru", 0, 0
    ),
    "reset before the product": Planted(False, gru_resets_before, "gru.l0", "gru", 0, 0),
    "layers exchanged": Planted(False, faults.exchange_layers, "lstm.l0", "lstm", 0, 0),
    "the readout's bias": Planted(False, other_bias("head.bias"), "head", "head", None, 0),
    "the output scaled": Planted(False, faults.scaled("y", 1.01), "y", "", None, 0),
    "the output a frame late": Planted(False, faults.late("y"), "y", "", None, 0),
    "streaming gates of layer 1": Planted(True, faults.roll_gates(1), "lstm.l1", "lstm", 1, 0),
    "h0 of layer 1 ignored": Planted(True, faults.no_input(1, 5), "lstm.l1", "lstm", 1, 0),
    "h0 of the GRU ignored": Planted(True, faults.no_input(2, 5), "gru.l0", "gru", 0, 0),
    "h and c exchanged going in": Planted(
        True, faults.exchange_states_in(0), "into lstm.l0", "lstm", 0, 0
    ),
    "h and c exchanged coming out": Planted(
        True, faults.exchange_states_out(1), "s003", "lstm", None, None
    ),
    "a state scaled": Planted(True, faults.scaled("s005_out", 1.01), "s005", "gru", None, None),
    "a state that stands still": Planted(
        True, faults.state_stands_still("s002"), "s002", "lstm", None, None
    ),
    "a cache of ones": Planted(True, cache_of_ones, "front", "front", None, 0),
    "a cache a frame longer": Planted(True, cache_a_frame_longer, "front", "front", None, None),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_located(
    artifacts: dict[bool, Path], tmp_path: Path, planted: Planted
) -> None:
    path = tmp_path / "faulty.onnx"
    plant(artifacts[planted.streaming], path, planted.fault)
    location = locate(path, inputs=quiet_start())
    first = location.first
    assert first is not None
    found = (first.block, first.module, first.layer, first.first_step)
    assert found == (planted.block, planted.module, planted.layer, planted.step), first
    names = [block.block for block in location.blocks]
    assert set(names) >= RIGHT
    assert all(block.passed for block in location.blocks[: names.index(first.block)])
    assert first.block in location.sentence
    assert first.local > 1e-3


def cache_stands_still(model: ModelProto) -> None:
    """The cache of the convolution keeps its first frames."""
    faults.state_stands_still("s000")(model)


def cache_a_frame_late(model: ModelProto) -> None:
    """The cache takes the frames before the last ones."""
    (node,) = (node for node in model.graph.node if "s000_out" in node.output)
    bounds = {1: np.array([-3]), 2: np.array([-1])}
    for position, bound in bounds.items():
        name = f"late{position}"
        model.graph.initializer.append(numpy_helper.from_array(bound, name))
        node.input[position] = name


@pytest.mark.parametrize("fault", [cache_stands_still, cache_a_frame_late])
def test_what_is_carried_wrongly_is_located_in_the_second_call(
    artifacts: dict[bool, Path], tmp_path: Path, fault: Fault
) -> None:
    plant(artifacts[True], tmp_path / "faulty.onnx", fault)
    location = locate(tmp_path / "faulty.onnx")
    assert location.first is not None
    assert (location.first.block, location.first.first_step) == ("front", 8)
    assert location.run == {"batch": 2, "frames": 16, "calls": 2}
    failed = {block.block for block in location.blocks if not block.passed}
    assert failed == {"front"}


def test_the_error_is_told_apart_from_what_it_does_later(
    artifacts: dict[bool, Path], tmp_path: Path
) -> None:
    plant(artifacts[True], tmp_path / "faulty.onnx", faults.roll_gates(0))
    blocks = {block.block: block for block in locate(tmp_path / "faulty.onnx").blocks}
    failed = {name for name, block in blocks.items() if not block.passed}
    assert failed == {"lstm.l0"}
    later = ("lstm.l1", "gru.l0", "head")
    assert all(blocks[name].local < 1e-6 < 1e-3 < blocks[name].accumulated for name in later)
    earlier = ("front", "act", "into lstm.l0")
    assert all(blocks[name].accumulated < 1e-6 for name in earlier)


def test_errors_that_add_up_are_no_blocks(artifacts: dict[bool, Path], tmp_path: Path) -> None:
    """Two faults: the first is named, both are seen, and what is between them is right."""
    plant(artifacts[False], tmp_path / "one.onnx", faults.roll_gates(0))
    plant(tmp_path / "one.onnx", tmp_path / "two.onnx", faults.roll_gates(2))
    location = locate(tmp_path / "two.onnx")
    assert [block.block for block in location.blocks if not block.passed] == ["lstm.l0", "gru.l0"]
    assert location.first is not None
    assert location.first.block == "lstm.l0"


QUICK = (("lstm", True), ("bidirectional", False), ("twice", True), ("explicit-gru", False))
CASES = [(name, streaming) for name in NETWORKS for streaming in (False, True)]


@pytest.mark.parametrize(
    ("name", "streaming"),
    [
        case if case in QUICK else pytest.param(*case, marks=pytest.mark.full)
        for case in CASES
        if case != ("bidirectional", True)
    ],
)
def test_no_block_of_a_right_artifact_is_out(
    exported: Callable[..., Path], name: str, streaming: bool
) -> None:
    path, model = exported(name, streaming=streaming), NETWORKS[name]()[0]
    report = rnnx.check(path, model, locate=True, probes=["sequence"])
    assert report.location is not None
    assert report.location.first is None, report.location.to_text()
    nodes = sum(rnnx.load_contract(path).operators.get(kind, 0) for kind in faults.GATES)
    into = [block.block for block in report.location.blocks if block.block.startswith("into ")]
    assert {f"into {name}" for name in _names(path)} >= set(into)
    assert {block.block for block in report.location.blocks} >= _names(path)
    assert len(_names(path)) == nodes > 0


def _names(path: Path) -> set[str]:
    return {node.name for node in onnx.load(path).graph.node if node.op_type in faults.GATES}


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["gtcrn", "wavenet", "residual lstms", "projected lstms", "sub-bands", "raw audio"]
)
def test_no_block_of_an_architecture_is_out(tmp_path: Path, name: str) -> None:
    architecture, path = ARCHITECTURES[name], tmp_path / "m.onnx"
    module = architecture.module()
    rnnx.export(
        module, architecture.example(), path, dynamic_shapes=architecture.axes, streaming=True
    )
    report = rnnx.check(path, module, locate=True, probes=["sequence"])
    assert report.location is not None
    assert report.location.first is None, report.location.to_text()
    assert len(report.location.blocks) > 1


def test_a_quantized_artifact_tells_what_each_block_costs(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    rnnx.quantize(exported("wide", streaming=True), tmp_path / "q.onnx", level="int8-store")
    model = NETWORKS["wide"]()[0]
    report = rnnx.check(tmp_path / "q.onnx", model, locate=True, probes=["sequence"])
    assert report.location is not None
    blocks = {block.block: block for block in report.location.blocks}
    assert report.passed
    assert blocks["into rnn.l0"].local < 1e-6 < 1e-5 < blocks["rnn.l0"].local
    assert all(block.passed for block in blocks.values())


def test_the_report_holds_the_location(artifacts: dict[bool, Path], tmp_path: Path) -> None:
    plant(artifacts[True], tmp_path / "faulty.onnx", faults.roll_gates(1))
    model = crnn.build()[0]
    report = rnnx.check(tmp_path / "faulty.onnx", model, locate=True, probes=["sequence"])
    assert report.location is not None
    assert not report.passed
    record = json.loads(report.to_json())["location"]
    assert record["first"] == "lstm.l1"
    assert record["sentence"] == report.location.sentence
    assert record["run"] == {"batch": 2, "frames": 16}
    held = [(block.block, block.local, block.passed) for block in report.location.blocks]
    assert [(b["block"], b["local"], b["passed"]) for b in record["blocks"]] == held
    text = report.to_text()
    assert "lstm.l1 (module 'lstm', layer 1) is the first block out of tolerance" in text
    assert "at time step 0" in text
    without = rnnx.check(tmp_path / "faulty.onnx", model, probes=["sequence"])
    assert without.location is None
    assert "location" not in json.loads(without.to_json())


def test_a_shape_that_is_another_is_told(artifacts: dict[bool, Path], tmp_path: Path) -> None:
    plant(
        artifacts[False],
        tmp_path / "faulty.onnx",
        faults.after("y", ("Transpose", [], {"perm": [1, 0, 2]})),
    )
    location = locate(tmp_path / "faulty.onnx")
    assert location.first is not None
    assert location.first.block == "y"
    assert "shape [16, 2, 3] instead of [2, 16, 3]" in location.sentence


def test_nothing_is_left_in_the_users_model(artifacts: dict[bool, Path]) -> None:
    model = crnn.build()[0]
    rnnx.check(artifacts[True], model, locate=True, probes=["sequence"])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_cannot_be_looked_into_is_refused(artifacts: dict[bool, Path], tmp_path: Path) -> None:
    model, args = crnn.build()
    with pytest.raises(rnnx.InputError, match="only a torch model tells"):
        rnnx.check(artifacts[True], artifacts[False], locate=True, probes=["sequence"])
    rnnx.to_streaming(artifacts[False], tmp_path / "fixed.onnx", chunk=4)
    with pytest.raises(rnnx.InputError, match="takes chunks of 4 frames"):
        rnnx.check(tmp_path / "fixed.onnx", model, args, locate=True, probes=["sequence"])


class Packs(torch.nn.Module):
    """Layers over packed sequences, whose frames no tensor of torch's holds as the graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.lower = torch.nn.Linear(4, 4)
        self.rnn = torch.nn.GRU(4, 4, batch_first=True)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.lower(x), lengths, batch_first=True)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        out: torch.Tensor = self.head(y)
        return out


def test_what_cannot_be_told_apart_is_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, args = Packs().eval(), (torch.randn(2, 7, 4), torch.tensor([7, 4]))
    rnnx.export(model, args, tmp_path / "m.onnx")
    plant(tmp_path / "m.onnx", tmp_path / "faulty.onnx", faults.roll_gates(0))
    found = {}
    for name in ("m", "faulty"):
        path = tmp_path / f"{name}.onnx"
        found[name] = rnnx.check(path, model, locate=True, probes=["sequence"]).location
    right, wrong = found["m"], found["faulty"]
    assert right is not None
    assert right.first is None
    assert wrong is not None
    assert wrong.first is not None
    assert (wrong.first.block, wrong.first.others) == ("head", ("rnn",))
    assert wrong.sentence.endswith("; rnn cannot be told apart from it")
    assert wrong.blocks[0].others == ()

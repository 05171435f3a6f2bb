"""Operators that work along some axes: fine along features, refused along time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from rnnx_exporters.rules.reading import (
    TIME_IS_CHANNEL,
    TRANSPOSE,
    axes_input,
    axis_attribute,
    frames_of,
    only_first,
    rank,
)
from rnnx_exporters.timeline import Fact, Frames, Refused

_RUNNING = "Train with a causal form: a running mean, or a norm over features."


def along_axis(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Softmax, LogSoftmax, Hardmax, LpNormalization: along one axis, the last by default."""
    only_first(facts)
    axis = axis_attribute(node, "axis", -1, rank(node.inputs[0]))
    if frames_of(facts[0]) == axis:
        raise Refused(f"{node.op_type} runs over time: every frame would need all others", _RUNNING)
    return facts[:1]


def from_axis(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """LayerNormalization and its kin: along one axis and all that follow."""
    only_first(facts)
    time = frames_of(facts[0])
    if time is not None and time >= axis_attribute(node, "axis", -1, rank(node.inputs[0])):
        raise Refused(f"{node.op_type} runs over time: every frame would need all others", _RUNNING)
    return facts[:1]


def per_channel(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """BatchNormalization: its statistics are constants of each channel, which is axis 1."""
    only_first(facts)
    if frames_of(facts[0]) == 1:
        raise Refused(TIME_IS_CHANNEL, TRANSPOSE)
    return facts[:1]


def over_space(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Norms and pools over all axes behind the channels."""
    only_first(facts)
    if isinstance(facts[0], Frames):
        raise Refused(f"{node.op_type} runs over time: every frame would need all others", _RUNNING)
    return facts[:1]


def reduce(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """ReduceMean and its kin."""
    only_first(facts)
    axes = axes_input(node, 1, rank(node.inputs[0])) or list(range(rank(node.inputs[0])))
    return [_without(node, facts[0], axes)]


def arg_reduce(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """ArgMax and ArgMin."""
    return [_without(node, facts[0], [axis_attribute(node, "axis", 0, rank(node.inputs[0]))])]


def top_k(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """TopK: sorts along one axis."""
    return along_axis(node, facts)


def _without(node: ir.Node, fact: Fact, axes: list[int]) -> Fact:
    if not isinstance(fact, Frames):
        return fact
    if fact.axis in axes:
        raise Refused(f"{node.op_type} runs over time: its result needs every frame", _RUNNING)
    keep = node.attributes.get("keepdims")
    if keep is None or keep.as_int():
        return fact
    return replace(fact, axis=fact.axis - sum(axis < fact.axis for axis in axes))


_REDUCTIONS = """
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare
"""

_OVER_SPACE = """
    GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization
"""

RULES = {
    **dict.fromkeys(("Hardmax", "LogSoftmax", "LpNormalization", "Softmax"), along_axis),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), from_axis),
    **dict.fromkeys(_OVER_SPACE.split(), over_space),
    **dict.fromkeys(_REDUCTIONS.split(), reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg_reduce),
    "BatchNormalization": per_channel,
    "TopK": top_k,
}

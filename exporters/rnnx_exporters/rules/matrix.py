"""Matrix products: fine where time is a row of the left factor, refused where it is summed over."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from rnnx_exporters.rules.reading import at, frames_of, no_mixing, rank
from rnnx_exporters.timeline import Fact, Frames, Last, Refused

_ATTENTION = "Attention over all frames needs the whole sequence; limit it to a window of the past."


def mat_mul(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """MatMul: the last axis of the left factor and the last but one of the right are summed."""
    no_mixing(facts)
    if not any(isinstance(fact, Frames) for fact in facts):
        return [Last()]
    left, right = node.inputs
    out = rank(node.outputs[0])
    axes = {
        _kept(facts[0], rank(left), out, summed=-1),
        _kept(facts[1], rank(right), out, summed=-2),
    } - {None}
    if len(axes) != 1:
        raise Refused("it multiplies frames by other frames", _ATTENTION)
    return [at(facts, axis) for axis in axes if axis is not None]


def gemm(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Gemm: rows of the left factor may be frames."""
    no_mixing(facts)
    if any(fact is not None for fact in facts[1:]):
        raise Refused("it multiplies frames by other frames", _ATTENTION)
    transposed = "transA" in node.attributes and node.attributes["transA"].as_int()
    axis = frames_of(facts[0])
    if axis is None:
        return facts[:1]
    if axis == (0 if transposed else 1):
        raise Refused("it sums over time", _ATTENTION)
    return [at(facts, 0)]


def _kept(fact: Fact, axes: int, out: int, *, summed: int) -> int | None:
    """Where time stands in the product, given where it stands in this factor."""
    axis = frames_of(fact)
    if axis is None:
        return None
    if axis == axes + summed or axes == 1:
        raise Refused("it sums over time", _ATTENTION)
    return out + axis - axes


RULES = {"MatMul": mat_mul, "Gemm": gemm}

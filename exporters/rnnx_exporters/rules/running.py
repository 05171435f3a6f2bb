"""Operators that carry a value from frame to frame: running sums, and loops over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from rnnx_exporters.edits import RunningSum
from rnnx_exporters.lifting import Carry
from rnnx_exporters.rules.reading import FORWARD, alone, constant, flag, ints, only_first, rank
from rnnx_exporters.timeline import Edit, Fact, Frames, Last, Planned, Refused


def cum_sum(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """CumSum: over time, the sum so far; over features, each frame for itself."""
    only_first(facts)
    frames = facts[0]
    if not isinstance(frames, Frames):
        return facts[:1]
    axis = int(constant(node.inputs[1]).reshape(()))
    if axis % rank(node.inputs[0]) != frames.axis:
        return facts[:1]
    alone(frames)
    if flag(node, "reverse"):
        raise Refused("it sums from the end of the sequence", "Sum from its start.")
    edit = RunningSum(node, frames, flag(node, "exclusive"))
    return Planned([replace(frames, clock=frames.clock.remembering())], [edit])


def scan(node: ir.Node, facts: list[Fact]) -> Planned | Sequence[Fact]:
    """Scan over time: what its body carries is carried on."""
    count = node.attributes["num_scan_inputs"].as_int()
    carried = len(node.inputs) - count
    if not any(isinstance(fact, Frames) for fact in facts[carried:]):
        return [Last()]
    if any(fact is not None for fact in facts[:carried]):
        raise Refused("it starts from a state that is known only when another sequence has ended")
    axes = ints(node, "scan_input_axes", [0] * count)
    if any(f is None or not isinstance(f, Frames) for f in facts[carried:]):
        raise Refused("one of the sequences it runs over does not depend on the frames")
    framed = [fact for fact in facts[carried:] if isinstance(fact, Frames)]
    axes = [axis % rank(v) for axis, v in zip(axes, node.inputs[carried:], strict=True)]
    if [fact.axis for fact in framed] != axes:
        raise Refused("it does not run over time")
    backward = [*ints(node, "scan_input_directions", []), *ints(node, "scan_output_directions", [])]
    if any(backward):
        raise Refused("it reads the sequence from its end", FORWARD)
    return _stepping(node, carried, framed[0])


def _stepping(node: ir.Node, carried: int, frames: Frames) -> Planned:
    clock = frames.clock.remembering()
    scanned = len(node.outputs) - carried
    axes = ints(node, "scan_output_axes", [0] * scanned)
    ranks = [rank(value) for value in node.outputs[carried:]]
    outputs = [Frames(a % r, clock) for a, r in zip(axes, ranks, strict=True)]
    edits: list[Edit] = [Carry(node, place, frames) for place in range(carried)]
    return Planned([*(Last() for _ in range(carried)), *outputs], edits)


RULES = {"CumSum": cum_sum, "Scan": scan}

"""Reshapes that make one frame of several, side by side, or several of one."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import prod

import onnx_ir as ir

from rnnx_exporters.edits import Sizes
from rnnx_exporters.rules.windows import stacked
from rnnx_exporters.timeline import Frames, Planned


def regrouped(node: ir.Node, frames: Frames) -> Fraction | None:
    """How many frames become one, where all behind the time axis have fixed sizes."""
    before, after, axis = node.inputs[0], node.outputs[0], frames.axis
    if before is None or before.shape is None or after.shape is None or frames.rows is not None:
        return None
    found = _asked_or_inferred(node)
    if list(map(str, before.shape[:axis])) != list(map(str, found[:axis])):
        return None
    if len(found) <= axis or isinstance(found[axis], int):
        return None
    sizes = [dims[axis + 1 :] for dims in (before.shape, found)]
    fixed = [[dim for dim in dims if isinstance(dim, int) and dim] for dims in sizes]
    if list(map(len, fixed)) != list(map(len, sizes)):
        return None
    factor = Fraction(prod(fixed[1]), prod(fixed[0]))
    return None if factor == 1 or 1 not in (factor.numerator, factor.denominator) else factor


def _asked_or_inferred(node: ir.Node) -> list[int | ir.SymbolicDim]:
    """The shape behind a Reshape; what inference left free is read off the sizes asked for."""
    inferred, sizes = list(node.outputs[0].shape or ()), node.inputs[1]
    maker = None if sizes is None else sizes.producer()
    if maker is None or maker.op_type != "Concat" or len(maker.inputs) != len(inferred):
        return inferred
    asked = [None if v is None else ir.convenience.get_const_tensor(v) for v in maker.inputs]
    numbers = [-1 if tensor is None else int(tensor.numpy().item()) for tensor in asked]
    pairs = zip(numbers, inferred, strict=True)
    return [number if number > 0 else dim for number, dim in pairs]


def regroup(node: ir.Node, frames: Frames, factor: Fraction) -> Planned:
    """Some frames become one, side by side, or one becomes some."""
    found = _asked_or_inferred(node)[frames.axis + 1 :]
    rest = [dim for dim in found if isinstance(dim, int)]
    sizes = Sizes(node, lambda memory, node: (*(0,) * frames.axis, -1, *rest))
    if factor > 1:
        window = stacked(node, frames, int(factor))
        return Planned([replace(frames, clock=window.clock)], [window, sizes])
    clock = frames.clock.upsampled(factor.denominator, kernel=factor.denominator)
    return Planned([replace(frames, clock=clock)], [sizes])

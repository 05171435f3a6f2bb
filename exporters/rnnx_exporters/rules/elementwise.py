"""Operators that treat every element alone, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from rnnx_exporters.rules.reading import LENGTH_UNKNOWN, at, constant, no_mixing, rank
from rnnx_exporters.timeline import Fact, Frames, Last, Length, Refused


def broadcast(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Each output element depends on the input elements at its own place."""
    no_mixing(facts)
    if any(isinstance(fact, Length) for fact in facts):
        return [_lengths(node, facts)]
    if any(isinstance(fact, Last) for fact in facts):
        return [Last()]
    behind = {f.axis - rank(v) for v, f in _pairs(node, facts) if isinstance(f, Frames)}
    if len(behind) != 1:
        raise Refused("time stands on different axes of its inputs")
    offset = behind.pop()
    for value, fact in _pairs(node, facts):
        _no_fixed_length(value, fact, offset)
    return [at(facts, rank(node.outputs[0]) + offset)]


def _pairs(node: ir.Node, facts: list[Fact]) -> list[tuple[ir.Value, Fact]]:
    return [(v, f) for v, f in zip(node.inputs, facts, strict=True) if v is not None]


def _no_fixed_length(value: ir.Value, fact: Fact, offset: int) -> None:
    """A constant along time would give the graph one fixed length."""
    if fact is None and rank(value) >= -offset and value.shape is not None:
        size = value.shape[offset]
        if size != 1:
            raise Refused(f"{value.name!r} has the fixed length {size} along time")


def _lengths(node: ir.Node, facts: list[Fact]) -> Length:
    """Sizes that are computed from sizes depend on the frames if one of them does."""
    if node.op_type not in (*_PASS, *_COMPUTE):
        raise Refused(LENGTH_UNKNOWN)
    found = [fact for fact in facts if isinstance(fact, Length)]
    size = max(len(fact.flags) for fact in found)
    flags = tuple(any(f.flags[min(i, len(f.flags) - 1)] for f in found) for i in range(size))
    if len(found) == 1 and node.op_type in ("Add", "Sub"):
        return replace(found[0], plus=found[0].plus + _added(node, facts))
    passed = node.op_type in _PASS and len(found) == 1
    return replace(found[0], flags=flags) if passed else Length(flags)


def _added(node: ir.Node, facts: list[Fact]) -> int:
    """The number that is added to a count of frames."""
    place = 0 if facts[0] is None else 1
    if node.op_type == "Sub" and place == 0:
        raise Refused(LENGTH_UNKNOWN)
    number = constant(node.inputs[place])
    if number.size != 1 or number != np.round(number):
        raise Refused(LENGTH_UNKNOWN)
    return int(number.reshape(())) * (-1 if node.op_type == "Sub" else 1)


_OPERATORS = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
    CastLike Ceil Celu Clip Cos Cosh Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod
    Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus
    DequantizeLinear QuantizeLinear Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""

_PASS = frozenset({"Cast", "CastLike", "Equal", "Identity", "Where"})
_COMPUTE = frozenset({"Add", "Ceil", "Div", "Floor", "Max", "Min", "Mod", "Mul", "Sub"})

RULES = dict.fromkeys(_OPERATORS.split(), broadcast)

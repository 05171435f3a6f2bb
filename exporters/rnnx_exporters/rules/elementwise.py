"""Operators that treat every element alone, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from rnnx_exporters.rules.reading import LENGTH_UNKNOWN, no_mixing, rank
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
    return [Frames(rank(node.outputs[0]) + offset)]


def _pairs(node: ir.Node, facts: list[Fact]) -> list[tuple[ir.Value, Fact]]:
    return [(v, f) for v, f in zip(node.inputs, facts, strict=True) if v is not None]


def _no_fixed_length(value: ir.Value, fact: Fact, offset: int) -> None:
    """A constant along time would give the graph one fixed length."""
    if fact is None and rank(value) >= -offset and value.shape is not None:
        size = value.shape[offset]
        if size != 1:
            raise Refused(f"{value.name!r} has the fixed length {size} along time")


def _lengths(node: ir.Node, facts: list[Fact]) -> Length:
    """Sizes that are passed on; twice the number of frames is no longer the number of frames."""
    if node.op_type not in _PASS_SIZES:
        raise Refused(LENGTH_UNKNOWN)
    vectors = [fact.flags for fact in facts if isinstance(fact, Length)]
    size = max(map(len, vectors))
    return Length(tuple(any(v[min(i, len(v) - 1)] for v in vectors) for i in range(size)))


_OPERATORS = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast
    CastLike Ceil Celu Clip Cos Cosh Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual
    HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod
    Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus
    Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor
"""

_PASS_SIZES = frozenset({"Cast", "CastLike", "Equal", "Identity", "Where"})

RULES = dict.fromkeys(_OPERATORS.split(), broadcast)

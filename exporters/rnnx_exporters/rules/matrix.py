"""Matrix products: fine where time is a row of the left factor, refused where it is summed over."""

from __future__ import annotations

from collections import Counter
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


def einsum(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """Einsum: fine where the letter of time is kept."""
    no_mixing(facts)
    if not any(isinstance(fact, Frames) for fact in facts):
        return [Last()]
    terms, result = _equation(node)
    letters = {t[f.axis] for t, f in zip(terms, facts, strict=True) if isinstance(f, Frames)}
    if len(letters) != 1:
        raise Refused("it multiplies frames by other frames", _ATTENTION)
    time = letters.pop()
    if time not in result:
        raise Refused("it sums over time", _ATTENTION)
    if any(term.count(time) != (fact is not None) for term, fact in zip(terms, facts, strict=True)):
        raise Refused("one of its inputs has a fixed length along time")
    return [at(facts, result.index(time))]


def _equation(node: ir.Node) -> tuple[list[list[str]], list[str]]:
    """A letter for each axis of the inputs and of the output; digits for those of an ellipsis."""
    inputs, arrow, output = node.attributes["equation"].as_string().replace(" ", "").partition("->")
    terms = [
        _letters(term, rank(value))
        for term, value in zip(inputs.split(","), node.inputs, strict=True)
    ]
    if arrow:
        return terms, _letters(output, rank(node.outputs[0]))
    count = Counter(letter for term in terms for letter in term)
    return terms, sorted(x for x, n in count.items() if n == 1 or x.isdigit())


def _letters(term: str, axes: int) -> list[str]:
    before, dots, behind = term.partition("...")
    hidden = axes - len(before) - len(behind) if dots else 0
    return [*before, *"0123456789"[10 - hidden :], *behind]


def _kept(fact: Fact, axes: int, out: int, *, summed: int) -> int | None:
    """Where time stands in the product, given where it stands in this factor."""
    axis = frames_of(fact)
    if axis is None:
        return None
    if axis == axes + summed or axes == 1:
        raise Refused("it sums over time", _ATTENTION)
    return out + axis - axes


RULES = {"Einsum": einsum, "Gemm": gemm, "MatMul": mat_mul}

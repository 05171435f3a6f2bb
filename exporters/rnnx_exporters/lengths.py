"""How long sequences must be: lengths inside a graph are expressions, `(time - 400) // 160` say."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator

import onnx_ir as ir

from rnnx_exporters.tidy import recurrent_nodes

_LONGEST = 1 << 24
_OPERATORS: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def least_frames(model: ir.Model, time: str) -> int:
    """The least length at which every recurrent operator and every output has a frame.

    onnxruntime aborts the whole process on a GRU of none.

    Args:
        model: an offline graph.
        time: the name of its time axis.
    """
    lengths = [tree for text in set(_texts(model)) if (tree := _parsed(text)) is not None]
    return least(lambda frames: not any(_short(tree, time, frames) for tree in lengths)) or 1


def least(fits: Callable[[int], bool]) -> int | None:
    """The least number from 1 on that fits, if all greater ones do; None if it is enormous."""
    high = 1
    while not fits(high):
        high *= 2
        if high > _LONGEST:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _texts(model: ir.Model) -> Iterator[str]:
    values = [node.inputs[0] for node in recurrent_nodes(model)]
    for value in (*values, *model.graph.outputs):
        if value is not None and value.shape is not None:
            yield from (str(dim.value) for dim in value.shape if not isinstance(dim, int))


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a foreign graph's own words
        return None


def _short(tree: ast.expr, time: str, frames: int) -> bool:
    """Whether a length is known and has no frame then."""
    length = _evaluated(tree, time, frames)
    return length is not None and length < 1


def _evaluated(tree: ast.expr, time: str, frames: int) -> int | None:
    if isinstance(tree, ast.Name):
        return frames if tree.id == time else None
    if isinstance(tree, ast.Constant):
        return tree.value if isinstance(tree.value, int) else None
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        operand = _evaluated(tree.operand, time, frames)
        return None if operand is None else -operand
    if not isinstance(tree, ast.BinOp):
        return None
    compute = _OPERATORS.get(type(tree.op))
    left, right = _evaluated(tree.left, time, frames), _evaluated(tree.right, time, frames)
    if compute is None or left is None or right is None:
        return None
    return None if right == 0 and compute is operator.floordiv else compute(left, right)

"""Reads the body of a Scan: what its next states and outputs are, as Vectors of the algebra."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from rnnx_exporters.algebra import Array, Opaque, Vector

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike", "Dropout"}
)

# An operand is a constant, a row for each sequence, or nothing the algebra can hold.
Operand = Array | Vector | None
Known = dict[ir.Value, Operand]
Rule = Callable[[ir.Node, Sequence[Operand]], Sequence[Operand]]


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a Scan.

    Attributes:
        frames: the body's inputs that take one frame of the Scan's inputs; only those it uses.
        sources: for each of `frames`, the wire it comes from, `[time, batch, width]`.
        states: the states before the step.
        next: the states after it.
        outputs: its outputs.
    """

    frames: tuple[ir.Value, ...]
    sources: tuple[ir.Value, ...]
    states: tuple[Vector, ...]
    next: tuple[Vector, ...]
    outputs: tuple[Vector, ...]


def read_step(scan: ir.Node, constants: Mapping[ir.Value, Operand]) -> Step:
    """The step of a Scan node.

    Args:
        scan: the node.
        constants: the wires around it that are constant.

    Raises:
        Opaque: it is more than the algebra can hold.
    """
    body = scan.attributes["body"].as_graph()
    count = len(scan.inputs) - scan.attributes["num_scan_inputs"].as_int()
    if not _runs_forward(scan):
        raise Opaque
    known: Known = {**constants, **{value: _leaf(value) for value in body.inputs}}
    follow(body, known)
    used = [i for i in range(count, len(body.inputs)) if body.inputs[i].uses()]
    if not used or not all(isinstance(known[body.inputs[i]], Vector) for i in used):
        raise Opaque
    results = [_vector(_read(value, known)) for value in body.outputs]
    return Step(
        frames=tuple(body.inputs[i] for i in used),
        sources=tuple(_present(scan.inputs[i]) for i in used),
        states=tuple(_vector(known[value]) for value in body.inputs[:count]),
        next=tuple(results[:count]),
        outputs=tuple(results[count:]),
    )


def follow(graph: Iterable[ir.Node], known: Known) -> None:
    """Add to `known` what the nodes of `graph` compute, as far as the algebra can hold it."""
    for node in graph:
        results = _derive(node, [_read(value, known) for value in node.inputs])
        known |= zip(node.outputs, results, strict=True)


def _runs_forward(scan: ir.Node) -> bool:
    """Whether it runs over the first axis from its start, as torch's do."""
    attributes = (value for name, value in scan.attributes.items() if name.startswith("scan_"))
    return not any(any(attribute.as_ints()) for attribute in attributes)


def width_of(value: ir.Value) -> int:
    """The columns of a row for each sequence, `[batch, width]`.

    Raises:
        Opaque: the wire is no such row.
    """
    shape = value.shape
    if shape is None or len(shape) != 2 or not isinstance(shape[1], int):
        raise Opaque
    return shape[1]


def _leaf(value: ir.Value) -> Operand:
    with suppress(Opaque):
        if value.dtype == ir.DataType.FLOAT:
            return Vector.leaf(value, width_of(value))
    return None


def _read(value: ir.Value | None, known: Mapping[ir.Value, Operand]) -> Operand:
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return known.get(value) if tensor is None else tensor.numpy()


def _derive(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    nothing = [None] * len(node.outputs)
    if _is_constant(node, operands):
        return _evaluate(node, operands)
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    try:
        return rule(node, operands) if rule else nothing
    except Opaque:
        return nothing


def _is_constant(node: ir.Node, operands: Sequence[Operand]) -> bool:
    given = [x for x, value in zip(operands, node.inputs, strict=True) if value is not None]
    known = all(isinstance(operand, np.ndarray) for operand in given)
    return bool(given) and known and node.op_type not in _RANDOM


def _evaluate(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    feeds = {
        str(value.name): operand
        for value, operand in zip(node.inputs, operands, strict=True)
        if value is not None
    }
    try:
        results = ReferenceEvaluator(ir.to_proto(node)).run(None, feeds)
    except Exception:  # an operator the evaluator lacks: then the wire is not known
        return [None] * len(node.outputs)
    return [np.asarray(result) for result in results]


def _vector(operand: Operand) -> Vector:
    if isinstance(operand, Vector):
        return operand
    raise Opaque


def _array(operand: Operand) -> Array:
    if isinstance(operand, np.ndarray):
        return operand
    raise Opaque


def _present(value: ir.Value | None) -> ir.Value:
    assert value is not None
    return value


def _row(operand: Operand) -> Vector:
    """A Vector as it is; a constant that is the same for each sequence, as its bias."""
    if isinstance(operand, np.ndarray) and operand.shape[:-1] in ((), (1,)):
        return Vector(operand.reshape(-1).astype(np.float64))
    return _vector(operand)


def _pair(operands: Sequence[Operand]) -> tuple[Vector, Vector]:
    """Two operands at one width: a single column is repeated."""
    a, b = (_row(operand) for operand in operands)
    width = max(a.width, b.width)
    return _widened(a, width), _widened(b, width)


def _widened(vector: Vector, width: int) -> Vector:
    return vector if vector.width == width else vector.columns(np.zeros(width, np.int64))


def _hold_columns(node: ir.Node, default: int) -> None:
    """Only the columns may be cut and joined: the other axis counts the sequences."""
    if node.attributes.get_int("axis", default) not in (1, -1):
        raise Opaque


def _add(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    a, b = _pair(operands)
    return [a + b]


def _sub(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    a, b = _pair(operands)
    return [a - b]


def _mul(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    a, b = _pair(operands)
    return [a * b]


def _neg(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    return [-_vector(operands[0])]


def _pass(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    return operands


def _apply(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    return [_vector(operands[0]).applied(node.op_type)]


def _matmul(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    return [_vector(operands[0]).mixed(_matrix(operands[1]))]


def _einsum(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    """A row times a matrix, `bf,fh->bh` or `bf,hf->bh`, whichever of them comes first."""
    equation = node.attributes["equation"].as_string().replace(" ", "")
    match = re.fullmatch(r"(\w\w),(\w\w)->(\w)(\w)", equation)
    if match is None:
        raise Opaque
    axes, (batch, column) = match.groups()[:2], match.groups()[2:]
    pairs = list(zip(operands, axes, strict=True))
    (row, of_row), (matrix, of_matrix) = (
        pairs if isinstance(operands[1], np.ndarray) else pairs[::-1]
    )
    summed = of_row[1]
    if of_row[0] != batch or len({batch, summed, column}) != 3:
        raise Opaque
    if of_matrix not in (summed + column, column + summed):
        raise Opaque
    array = _matrix(matrix)
    return [_vector(row).mixed(array if of_matrix[0] == summed else array.T)]


def _gemm(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    get = node.attributes.get_int
    if get("transA", 0):
        raise Opaque
    matrix = _matrix(operands[1]).T if get("transB", 0) else _matrix(operands[1])
    product = _vector(operands[0]).mixed(node.attributes.get_float("alpha", 1.0) * matrix)
    if len(operands) < 3 or node.inputs[2] is None:
        return [product]
    a, b = _pair([product, operands[2]])
    return [a + b.scaled(np.full(b.width, node.attributes.get_float("beta", 1.0)))]


def _matrix(operand: Operand) -> Array:
    array = _array(operand)
    if array.ndim != 2:
        raise Opaque
    return array.astype(np.float64)


def _concat(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    _hold_columns(node, default=0)
    rows = [_vector(operand) for operand in operands]
    starts = np.cumsum([0, *(row.width for row in rows)])
    placed = [
        row.mixed(np.eye(row.width, starts[-1], start))
        for row, start in zip(rows, starts, strict=False)
    ]
    return [reduce(add, placed)]


def _split(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    _hold_columns(node, default=0)
    row = _vector(operands[0])
    if len(operands) > 1:
        starts = np.cumsum(_array(operands[1]))[:-1].tolist()
    else:
        size = -(-row.width // len(node.outputs))
        starts = list(range(size, row.width, size))
    return [row.columns(index) for index in np.split(np.arange(row.width), starts)]


def _slice(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    row = _vector(operands[0])
    numbers = [_array(operand).tolist() for operand in operands[1:]]
    if len(numbers) != 4 or numbers[2] not in ([1], [-1]):
        raise Opaque
    starts, ends, _, steps = numbers
    return [row.columns(np.arange(row.width)[slice(starts[0], ends[0], steps[0])])]


def _gather(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    _hold_columns(node, default=0)
    row, index = _vector(operands[0]), _array(operands[1])
    if index.ndim != 1:
        raise Opaque
    return [row.columns(index % row.width)]


def _where(node: ir.Node, operands: Sequence[Operand]) -> Sequence[Operand]:
    """Two ways to compute one thing, as torch.lerp has them."""
    a, b = _pair(operands[1:])
    if a != b:
        raise Opaque
    return [a]


_RULES: Mapping[str, Rule] = {
    "Add": _add,
    "Concat": _concat,
    "Einsum": _einsum,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": _pass,
    "MatMul": _matmul,
    "Mul": _mul,
    "Neg": _neg,
    "Relu": _apply,
    "Sigmoid": _apply,
    "Slice": _slice,
    "Split": _split,
    "Sub": _sub,
    "Tanh": _apply,
    "Where": _where,
}

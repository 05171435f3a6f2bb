"""The algebra against the reference evaluator: what it says a wire holds, the wire holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from rnnx_exporters.algebra import Opaque, Vector
from rnnx_exporters.scan_body import follow

FUNCTIONS = {
    "Identity": lambda x: x,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh,
}
BATCH, WIDTHS = 3, {"x": 2, "h": 4}


def evaluate(vector: Vector, inputs: Mapping[ir.Value, np.ndarray]) -> np.ndarray:
    """The rows a Vector stands for, `[batch, width]`."""
    total = np.tile(vector.bias, (BATCH, 1))
    for leaf, matrix in vector.linear.items():
        rows = evaluate(leaf, inputs) if isinstance(leaf, Vector) else inputs[leaf]
        total = total + rows @ matrix
    for product, coefficients in vector.products.items():
        factors = [FUNCTIONS[f.function](evaluate(f.inner, inputs)) for f in product]
        total = total + coefficients * np.prod(factors, axis=0)
    return total


class Body:
    """A graph over `x` and `h` that grows one node at a time."""

    def __init__(self, draw: Any) -> None:
        self.draw, self.tape = draw, ir.tape.Tape()
        self.rng = np.random.default_rng(draw(st.integers(0, 999)))
        self.inputs = [self.value(name, width) for name, width in WIDTHS.items()]
        self.rows = [(value, WIDTHS[str(value.name)]) for value in self.inputs]

    def value(self, name: str, width: int) -> ir.Value:
        return ir.Value(
            name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([BATCH, width])
        )

    def constant(self, *shape: int) -> ir.Value:
        array = self.rng.integers(-2, 3, shape).astype(np.float32)  # zeros and repeats among them
        return self.tape.initializer(ir.tensor(array), f"c{len(self.tape.initializers)}")

    def indices(self, numbers: list[int]) -> ir.Value:
        array = np.array(numbers, np.int64)
        return self.tape.initializer(ir.tensor(array), f"c{len(self.tape.initializers)}")

    def any_row(self) -> tuple[ir.Value, int]:
        return self.draw(st.sampled_from(self.rows))

    def add(self, operator: str, inputs: list[ir.Value], width: int, **attributes: Any) -> None:
        output = self.value(f"v{len(self.tape.nodes)}", width)
        self.tape.op(operator, inputs, attributes, output=output)
        self.rows.append((output, width))

    def grow(self) -> None:
        a, width = self.any_row()
        kind = self.draw(st.sampled_from(["function", "pair", "constant", "mix", "join", "cut"]))
        if kind == "function":
            names = ["Sigmoid", "Tanh", "Relu", "Neg", "Identity"]
            self.add(self.draw(st.sampled_from(names)), [a], width)
        elif kind == "pair":
            fitting = [value for value, other in self.rows if other in (width, 1)]
            operator = self.draw(st.sampled_from(["Add", "Sub", "Mul"]))
            self.add(operator, [a, self.draw(st.sampled_from(fitting))], width)
        elif kind == "constant":
            shape = self.draw(st.sampled_from([(), (width,), (1, width)]))
            pair = self.draw(st.permutations([a, self.constant(*shape)]))
            self.add(self.draw(st.sampled_from(["Add", "Sub", "Mul"])), pair, width)
        elif kind == "mix":
            self.mix(a, width, self.draw(st.integers(1, 4)))
        elif kind == "join":
            b, other = self.any_row()
            self.add("Concat", [a, b], width + other, axis=self.draw(st.sampled_from([1, -1])))
        else:
            self.cut(a, width)

    def mix(self, a: ir.Value, width: int, new: int) -> None:
        if self.draw(st.booleans()):
            self.add("MatMul", [a, self.constant(width, new)], new)
        else:
            matrix, bias = self.constant(new, width), self.constant(new)
            self.add("Gemm", [a, matrix, bias], new, transB=1, alpha=0.5, beta=2.0)

    def cut(self, a: ir.Value, width: int) -> None:
        if self.draw(st.booleans()):
            chosen = self.draw(st.lists(st.integers(-width, width - 1), min_size=1, max_size=4))
            self.add("Gather", [a, self.indices(chosen)], len(chosen), axis=1)
        else:
            step = self.draw(st.sampled_from([1, 2, -1]))
            start, end = (0, width) if step > 0 else (-1, -width - 1)
            numbers = [self.indices([n]) for n in (start, end, 1, step)]
            self.add("Slice", [a, *numbers], len(range(0, width, abs(step))))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_vector_is_what_its_wire_holds(data: st.DataObject) -> None:
    body = Body(data.draw)
    for _ in range(data.draw(st.integers(1, 12))):
        body.grow()
    graph = ir.Graph(
        body.inputs,
        [node.outputs[0] for node in body.tape.nodes],
        nodes=body.tape.nodes,
        initializers=body.tape.initializers,
        opset_imports={"": 18},
        name="body",
    )
    model = ir.to_proto(ir.Model(graph, ir_version=10))
    rows = {v: body.rng.normal(size=(BATCH, WIDTHS[str(v.name)])) for v in body.inputs}
    feeds = {str(value.name): array.astype(np.float32) for value, array in rows.items()}
    expected = ReferenceEvaluator(model).run(None, feeds)
    known: dict[ir.Value, Any] = {v: Vector.leaf(v, WIDTHS[str(v.name)]) for v in body.inputs}
    follow(graph, known)
    assert all(isinstance(known[output], Vector) for output in graph.outputs[:4])
    for output, reference in zip(graph.outputs, expected, strict=True):
        if isinstance(known[output], Vector):  # what is large is given up
            found = evaluate(known[output], rows)
            np.testing.assert_allclose(found, reference, rtol=1e-3, atol=1e-3)


def test_sums_products_and_cuts_do_not_depend_on_how_they_are_written() -> None:
    rng = np.random.default_rng(0)
    x, h = (Vector.leaf(ir.Value(name=name), 4) for name in "xh")
    z = (x.mixed(rng.normal(size=(4, 4))) + h).applied("Sigmoid")
    n = h.mixed(rng.normal(size=(4, 4))).applied("Tanh")
    one = Vector(np.ones(4))
    assert (one - z) * n + z * h == n + z * (h - n) == h - (n - h) * (z - one)
    assert z - z == Vector(np.zeros(4))
    minus = -(x * n)
    assert -minus == n * x
    odd = np.array([3, 1])
    assert (z * h + n).columns(odd) == z.columns(odd) * h.columns(odd) + n.columns(odd)
    assert z * h + n != z * h - n


def squared(x: Vector, times: int) -> Vector:
    return squared(x * x, times - 1) if times else x


def test_what_grows_without_end_is_given_up() -> None:
    x = Vector.leaf(ir.Value(name="x"), 2) + Vector(np.ones(2))
    assert squared(x, 2).width == 2
    with pytest.raises(Opaque):
        squared(x, 100)

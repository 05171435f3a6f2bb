"""The algebra of one step of a loop: what a wire holds, in terms of the frame and the states.

A wire holds a row of numbers for each sequence. Its Vector is that row in a canonical form,

    bias + sum of leaf @ matrix + sum of coefficients * product of factors

so that one function gives equal Vectors however it was written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from hashlib import blake2b
from operator import mul
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

Array = npt.NDArray[Any]

# Recurrent operators need far less; products of sums would grow without end.
_LARGEST = 100
_IDENTITY = "Identity"


class Opaque(Exception):  # noqa: N818 - a verdict, never seen by users
    """The wire is nothing the algebra can hold."""


@dataclass(frozen=True)
class Factor:
    """A function of a Vector, element by element; `Identity` for a leaf times a matrix."""

    function: str
    inner: Vector

    def columns(self, index: npt.NDArray[np.int64]) -> Vector:
        """The factor's columns at `index`, as a Vector."""
        inner = self.inner.columns(index)
        return inner if self.function == _IDENTITY else inner.applied(self.function)


@dataclass(frozen=True, eq=False)
class Vector:
    """A row for each sequence, in canonical form. Two are equal where they are one function.

    Attributes:
        bias: `[width]`.
        linear: for each leaf, a matrix `[width of the leaf, width]`. A leaf is a wire nothing is
            known of, or a Vector of products that a matrix mixes.
        products: for each product of factors, its coefficients `[width]`.
    """

    bias: Array
    linear: Mapping[Leaf, Array] = field(default_factory=dict)
    products: Mapping[Product, Array] = field(default_factory=dict)

    @classmethod
    def leaf(cls, value: ir.Value, width: int) -> Vector:
        """A wire of `width` columns that nothing is known of."""
        return cls(np.zeros(width), {value: np.eye(width)})

    @property
    def width(self) -> int:
        """How many columns it has."""
        return len(self.bias)

    def __add__(self, other: Vector) -> Vector:
        return _sum([self, other])

    def __sub__(self, other: Vector) -> Vector:
        return self + -other

    def __neg__(self) -> Vector:
        return self.scaled(np.full(self.width, -1.0))

    def __mul__(self, other: Vector) -> Vector:
        if self.width != other.width:
            raise Opaque  # states of two widths, as a projection makes: no recurrent operator's
        pairs = itertools.product(self._terms(), other._terms())
        return _sum(_term(p + q, c * d) for (p, c), (q, d) in pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vector) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def complement(self) -> Vector:
        """One minus the Vector."""
        return Vector(np.ones(self.width)) - self

    def scaled(self, coefficients: Array) -> Vector:
        """The Vector times constants, column by column."""
        linear = {leaf: matrix * coefficients for leaf, matrix in self.linear.items()}
        products = {product: c * coefficients for product, c in self.products.items()}
        return _sum([Vector(self.bias * coefficients, linear, products)])

    def mixed(self, matrix: Array) -> Vector:
        """The Vector @ `matrix` [width, new width]."""
        parts = [_mixed(leaf, own @ matrix) for leaf, own in self.linear.items()]
        if self.products:
            products = Vector(np.zeros(self.width), products=self.products)
            parts.append(_mixed(products, matrix))
        return _sum([Vector(self.bias @ matrix), *parts])

    def columns(self, index: npt.NDArray[np.int64]) -> Vector:
        """The columns at `index`."""
        linear = [_mixed(leaf, matrix[:, index]) for leaf, matrix in self.linear.items()]
        products = [
            reduce(mul, (factor.columns(index) for factor in product)).scaled(c[index])
            for product, c in self.products.items()
        ]
        return _sum([Vector(self.bias[index]), *linear, *products])

    def applied(self, function: str) -> Vector:
        """A function of the Vector, element by element."""
        return _term((Factor(function, self),), np.ones(self.width))

    def over(self, factor: Factor) -> Vector:
        """What gives the Vector when it is multiplied by `factor`.

        Raises:
            Opaque: not every term has the factor.
        """
        if np.any(self.bias) or self.linear or not all(factor in p for p in self.products):
            raise Opaque
        return _sum(_term(_without(p, factor), c) for p, c in self.products.items())

    def inners(self, function: str) -> list[Vector]:
        """What `function` is applied to among the factors, each once."""
        factors = dict.fromkeys(factor for product in self.products for factor in product)
        return [factor.inner for factor in factors if factor.function == function]

    @cached_property
    def size(self) -> int:
        """How many Vectors it is made of."""
        leaves = sum(leaf.size for leaf in self.linear if isinstance(leaf, Vector))
        return 1 + leaves + sum(f.inner.size for product in self.products for f in product)

    @cached_property
    def _key(self) -> Any:
        linear = frozenset((leaf, _digest(matrix)) for leaf, matrix in self.linear.items())
        products = frozenset((product, _digest(c)) for product, c in self.products.items())
        return self.width, _digest(self.bias), linear, products

    def _terms(self) -> Iterator[tuple[Product, Array]]:
        yield (), self.bias
        for leaf, matrix in self.linear.items():
            scale = _scale(matrix)
            alone = Vector(np.zeros(self.width), {leaf: matrix / scale})
            yield (Factor(_IDENTITY, alone),), scale
        yield from self.products.items()


Leaf = ir.Value | Vector
Product = tuple[Factor, ...]


def _term(product: Product, coefficients: Array) -> Vector:
    """One product, its factors in one order."""
    if not product:
        return Vector(coefficients)
    if len(product) == 1 and product[0].function == _IDENTITY:
        return product[0].inner.scaled(coefficients)
    ordered = tuple(sorted(product, key=hash))
    return _sum([Vector(np.zeros_like(coefficients), products={ordered: coefficients})])


def _without(product: Product, factor: Factor) -> Product:
    place = product.index(factor)
    return product[:place] + product[place + 1 :]


def _mixed(leaf: Leaf, matrix: Array) -> Vector:
    """leaf @ matrix; where the matrix only selects columns, products are products again."""
    if isinstance(leaf, Vector) and _selects(matrix):
        return leaf.columns(matrix.argmax(axis=0))
    return Vector(np.zeros(matrix.shape[1]), {leaf: matrix})


def _scale(matrix: Array) -> Array:
    """Each column's largest entry: what is left is the same for x and for -x."""
    largest = matrix[np.abs(matrix).argmax(axis=0), np.arange(matrix.shape[1])]
    return np.where(largest == 0.0, 1.0, largest)


def _selects(matrix: Array) -> bool:
    one_each = (np.count_nonzero(matrix, axis=0) == 1) & (matrix.max(axis=0) == 1)
    return bool(one_each.all())


def _sum(vectors: Iterable[Vector]) -> Vector:
    """The sum, like terms collected and those that are zero left out.

    Raises:
        Opaque: it is too large to be a recurrent operator's.
    """
    bias: Any = 0.0
    linear: dict[Leaf, Any] = {}
    products: dict[Product, Any] = {}
    for vector in vectors:
        bias = bias + vector.bias
        for leaf, matrix in vector.linear.items():
            linear[leaf] = linear.get(leaf, 0.0) + matrix
        for product, coefficients in vector.products.items():
            products[product] = products.get(product, 0.0) + coefficients
    total = Vector(bias, _nonzero(linear), _nonzero(products))
    if total.size > _LARGEST:
        raise Opaque
    return total


def _nonzero(terms: Mapping[Any, Array]) -> dict[Any, Array]:
    return {key: array for key, array in terms.items() if array.any()}


def _digest(array: Array) -> bytes:
    positive = np.ascontiguousarray(
        array + 0.0
    )  # -0.0 becomes 0.0: they are equal, not their bytes
    return blake2b(positive.data, digest_size=16).digest()

"""How onnxruntime multiplies with small weights: one kernel each, as the gates of a cell use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.tape import Tape

from rnnx.quantization.gptq import gptq
from rnnx.quantization.rows import (
    Rounded,
    computing_scales,
    packed_blocks,
    round_blocks,
    to_codes,
)
from rnnx.quantization.store import add_initializer, add_vector

Array = npt.NDArray[Any]

DOMAIN = "com.microsoft"
_BIAS_ATOL = 0.01  # of a step of the weights


@dataclass(frozen=True, slots=True)
class Site:
    """Where operators and their constants go.

    Attributes:
        tape: takes the operators.
        graph: holds the constants: the one around a Scan.
        name: what all names of constants begin with.
    """

    tape: Tape
    graph: ir.Graph
    name: str


class Kernel(Protocol):
    """A way to multiply. Weights are `[rows, features]`, biases `[rows]`, both float32."""

    def product(self, site: Site, letter: str, x: ir.Value, weight: Array, bias: Array) -> ir.Value:
        """`x` `[batch, features]` times a weight, plus a bias."""

    def sum(
        self, site: Site, x: ir.Value, w: Array, h: ir.Value, r: Array, bias: Array
    ) -> ir.Value:
        """The sum of two products, plus a bias."""


@dataclass(frozen=True, slots=True)
class Rows:
    """int8 weights with a scale for each row, int8 activations with one for each call.

    DynamicQuantizeMatMul is faster with one scale than with one for each row, so these come after
    it; the two terms of a sum share them.
    """

    def product(self, site: Site, letter: str, x: ir.Value, weight: Array, bias: Array) -> ir.Value:
        """See `Kernel`."""
        (codes,), scale = self._codes(weight)
        product = _times(site, letter, x, codes, scale, bias)
        return _scaled(site, letter, product, scale)

    def sum(
        self, site: Site, x: ir.Value, w: Array, h: ir.Value, r: Array, bias: Array
    ) -> ir.Value:
        """See `Kernel`."""
        (w_codes, r_codes), scale = self._codes(w, r)
        given = _times(site, "W", x, w_codes, scale, bias)
        kept = _times(site, "R", h, r_codes, scale, np.zeros_like(bias))
        return _scaled(site, "WR", site.tape.op("Add", [given, kept]), scale)

    def _codes(self, *weights: Array) -> tuple[list[Array], Array]:
        """The codes of weights whose rows have one scale in all, and the scales `[rows]`."""
        scale = np.maximum.reduce([computing_scales(weight) for weight in weights])
        codes = [to_codes(weight, scale) for weight in weights]
        used = np.any([each.any(1) for each in codes], axis=0)  # the bias is divided by the scale
        return codes, np.where(used, scale[:, 0], scale.max())


def _times(
    site: Site, letter: str, x: ir.Value, codes: Array, scale: Array, bias: Array
) -> ir.Value:
    """`x` times a weight plus a bias, all of it divided by `scale / scale.max()`."""
    name, most = f"{site.name}.{letter}", scale.max()
    factors: list[ir.Value | None] = [
        x,
        add_initializer(site.graph, f"{name}.codes", codes.T),
        add_initializer(site.graph, f"{name}.largest", most),
    ]
    if bias.any():
        atol = _BIAS_ATOL * most
        factors += [None, add_vector(site.graph, f"{name}.bias", bias / scale * most, atol=atol)]
    return site.tape.op("DynamicQuantizeMatMul", factors, domain=DOMAIN)


def _scaled(site: Site, letter: str, product: ir.Value, scale: Array) -> ir.Value:
    factor = add_vector(site.graph, f"{site.name}.{letter}.scale", scale / scale.max())
    return site.tape.op("Mul", [product, factor])


@dataclass(frozen=True, slots=True)
class Blocks:
    """Weights of few bits with a scale for each block of a row, int8 activations likewise.

    MatMulNBits scales the activations in blocks of each frame and sequence by itself, so neither
    chunks nor neighbours change a bit.

    Attributes:
        bits: 4 or 8.
        block_size: weights that share a scale, a power of 2 from 16 on.
        hessians: of the inputs of weights, by the weights' names (`layer.0.W`, `layer.0.R`); a
            weight that has one is rounded by it, any other each number by itself.
    """

    bits: int
    block_size: int
    hessians: Mapping[str, Array] = field(default_factory=dict)

    def product(self, site: Site, letter: str, x: ir.Value, weight: Array, bias: Array) -> ir.Value:
        """See `Kernel`."""
        name, (rows, features) = f"{site.name}.{letter}", weight.shape
        made = self._rounded(weight, f"{site.name}.{letter[0]}")
        codes, scales, zeros = packed_blocks(made, self.bits)
        factors = [
            x,
            add_initializer(site.graph, f"{name}.codes", codes),
            add_initializer(site.graph, f"{name}.scales", scales),
            add_initializer(site.graph, f"{name}.zeros", zeros),
        ]
        attributes = {
            "K": features,
            "N": rows,
            "bits": self.bits,
            "block_size": self.block_size,
            "accuracy_level": 4,  # int8 activations; any other is slower than float32
        }
        product = site.tape.op("MatMulNBits", factors, attributes, domain=DOMAIN)
        if not bias.any():
            return product
        return site.tape.op("Add", [product, add_initializer(site.graph, f"{name}.bias", bias)])

    def _rounded(self, weight: Array, name: str) -> Rounded:
        hessian = self.hessians.get(name)
        if hessian is None:
            return round_blocks(weight, self.bits, self.block_size)
        return gptq(weight, hessian, self.bits, self.block_size)

    def sum(
        self, site: Site, x: ir.Value, w: Array, h: ir.Value, r: Array, bias: Array
    ) -> ir.Value:
        """See `Kernel`."""
        given = self.product(site, "W", x, w, bias)
        kept = self.product(site, "R", h, r, np.zeros_like(bias))
        return site.tape.op("Add", [given, kept])

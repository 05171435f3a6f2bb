"""A mixture: each part of the weights kept in as few bits as it bears, computed in float32.

A part is a matrix of a layer; of GRU and LSTM, the rows of its gates and those of the candidate,
which bear less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from rnnx.quantization.change import Change
from rnnx.quantization.forms import Form, Joined, Plain
from rnnx.quantization.levels.int4_store import in_nibbles
from rnnx.quantization.levels.int8_store import in_rows
from rnnx.quantization.observing import names_of
from rnnx.quantization.store import OVERHEAD_BYTES, store_weights
from rnnx.quantization.weights import Weight, find_weights

Array = npt.NDArray[Any]

BITS = (4, 8, 16)
_LEAST_BYTES = 4096  # of a part in float32: smaller ones stay so
_GATES = {"GRU": 3, "LSTM": 4}  # the candidate's rows come last
_LARGEST = float(np.finfo(np.float16).max)


class Part(NamedTuple):
    """Rows of a weight that are kept in one way."""

    weight: str
    rows: str

    def __str__(self) -> str:
        return f"{self.weight}, {self.rows}" if self.rows else self.weight


class Mixture:
    """What the parts of an artifact's weights become at so many bits each.

    Args:
        model: the artifact's graph.
        hessians: what its layers met on calibration data; see `observing`.

    Attributes:
        parts: those there are to choose for.
    """

    def __init__(self, model: ir.Model, hessians: Mapping[str, Array]) -> None:
        weights = list(find_weights(model))
        self._hessians = hessians
        self._forms: dict[tuple[Part, int], Form] = {}
        for weight in weights:
            self._keep(weight)
        self.parts = [part for w in weights for part in _parts_of(w) if self._is_worth(part)]

    def apply(self, model: ir.Model, bits: Mapping[Part, int]) -> Change:
        """Keep the weights of a graph of the same artifact so; parts not named in float32."""
        return store_weights(model, lambda weight: self._form(weight, bits))

    def size(self, part: Part, bits: int) -> int:
        """Bytes that a part takes."""
        return self._forms[part, bits].nbytes

    def _keep(self, weight: Weight) -> None:
        hessians = [self._hessians.get(name) for name in names_of(weight)]
        for part, array in _parts_of(weight).items():
            half = np.abs(array).max(initial=0) <= _LARGEST
            self._forms[part, 32] = Plain(array)
            self._forms[part, 16] = Plain(array.astype(np.float16) if half else array)
            self._forms[part, 8] = in_rows(array, weight.summed)
            self._forms[part, 4] = in_nibbles(array, weight.summed, hessians)

    def _is_worth(self, part: Part) -> bool:
        """Whether fewer bits are fewer bytes: rows of a weight or two have their scales besides."""
        sizes = [self.size(part, bits) for bits in (*BITS, 32)]
        saved = sizes[-1] - self.size(part, 8)
        return sizes == sorted(sizes) and saved >= OVERHEAD_BYTES and sizes[-1] >= _LEAST_BYTES

    def _form(self, weight: Weight, bits: Mapping[Part, int]) -> Form:
        forms = [self._forms[part, bits.get(part, 32)] for part in _parts_of(weight)]
        return Joined(forms, 1) if len(forms) > 1 else forms[0]


def _parts_of(weight: Weight) -> dict[Part, Array]:
    array, name = weight.array(), str(weight.value.name)
    gates = _GATES.get(weight.nodes[0].op_type)
    if gates is None or array.ndim != 3:
        return {Part(name, ""): array}
    candidate = array.shape[1] * (gates - 1) // gates
    return {
        Part(name, "gates"): array[:, :candidate],
        Part(name, "candidate"): array[:, candidate:],
    }

"""What distinguishes RNN, GRU and LSTM: one small spec for each, and nothing else anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class CellSpec:
    """How one of torch's recurrent functions maps to its ONNX operator.

    Attributes:
        function: torch's name, as in `torch.gru`.
        operator: ONNX's name.
        gates: for each ONNX gate in ONNX's order, its index in torch's order. Torch stacks the rows
            of an LSTM as i, f, g, o and of a GRU as r, z, n; ONNX as i, o, f, c and z, r, h.
        has_cell_state: whether there is a second state `c`.
        attributes: of the ONNX node.
        activation: for each direction, where it is not the operator's default.
    """

    function: str
    operator: str
    gates: tuple[int, ...]
    has_cell_state: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    activation: str | None = None

    @property
    def num_states(self) -> int:
        """How many states it carries: `h`, and `c` for an LSTM."""
        return 2 if self.has_cell_state else 1


CELLS = (
    CellSpec("rnn_tanh", "RNN", gates=(0,)),
    CellSpec("rnn_relu", "RNN", gates=(0,), activation="Relu"),
    # Torch applies the reset gate after the recurrent product, ONNX's default before it.
    CellSpec("gru", "GRU", gates=(1, 0, 2), attributes={"linear_before_reset": 1}),
    CellSpec("lstm", "LSTM", gates=(0, 3, 1, 2), has_cell_state=True),
)

OPERATORS = frozenset(cell.operator for cell in CELLS)

# Where an ONNX node keeps which layer of its module it is.
LAYER_KEY = "rnnx.layer"

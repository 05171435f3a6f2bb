"""LSTMs with a projection (`proj_size`), which ONNX lacks: folded into the weights, or a Scan.

With `h = P u` the recurrence `R h` is `(R P) u`: a native LSTM over `u`, at 4 H² multiply-adds a
frame. A Scan over the cell as it is written takes 5 H P, and its steps take time of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from rnnx_exporters.scan_operator import scan_operator

# Multiply-adds that take as long as a step of a Scan takes by itself (`benchmarks/projection.py`).
_SCAN_STEP = 250_000


def scan_is_faster(hidden_size: int, proj_size: int) -> bool:
    """Whether onnxruntime runs the Scan faster than the native LSTM."""
    return 4 * hidden_size**2 - 5 * hidden_size * proj_size > _SCAN_STEP


def invert_projections(module: torch.nn.Module) -> None:
    """Give every projected LSTM of `module` the pseudo-inverse of each projection, as a buffer.

    An explicit initial state `h = P u` must be turned back into `u`, and the constant for that can
    only be computed before the model is captured.
    """
    for layer in module.modules():
        if isinstance(layer, torch.nn.LSTM) and layer.proj_size:
            for name in layer._flat_weights_names:
                if name.startswith("weight_hr"):
                    projection = getattr(layer, name).detach().double()
                    inverse = torch.linalg.pinv(projection).float()
                    layer.register_buffer(inverse_name(name), inverse, persistent=False)


def inverse_name(weight: str) -> str:
    """The name of the buffer that holds the inverse of a projection."""
    return f"{weight}_inverse"


def run_scans(
    x: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """A projected LSTM as a Scan for each layer and direction; as `torch.lstm` takes and gives."""
    x = x.transpose(0, 1) if batch_first else x
    directions = 2 if bidirectional else 1
    count = num_layers * directions
    size = len(params) // count
    ends = []
    for first in range(0, count, directions):
        ys = []
        for place in range(first, first + directions):
            state, weights = [s[place] for s in states], params[place * size :][:size]
            end, y = _run_scan(x, state, weights, backward=place > first)
            ends.append(end)
            ys.append(y)
        x = torch.cat(ys, -1)
    h, c = (torch.stack(end) for end in zip(*ends, strict=True))
    return (x.transpose(0, 1) if batch_first else x), h, c


def _run_scan(
    x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], *, backward: bool
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """One direction of one layer; what the frames give to the gates is computed before the Scan."""
    w, r, *biases, down = weights

    def step(state: tuple[Tensor, Tensor], gates: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        h, c = state
        i, f, g, o = (gates + functional.linear(h, r)).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = functional.linear(torch.sigmoid(o) * torch.tanh(c), down)
        return (h, c), h

    gates = functional.linear(x, w, biases[0] + biases[1] if biases else None)
    end, y = scan_operator(step, tuple(state), gates.flip(0) if backward else gates, 0)
    return end, y.flip(0) if backward else y

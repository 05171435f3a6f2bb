"""Prepares LSTMs with a projection (`proj_size`), which ONNX lacks, to be folded into weights."""

from __future__ import annotations

import torch


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

"""Answers that share no code with rnnx or onnxruntime: numpy in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]


def gru_in_float64(path: Path, x: Array, h: Array | None = None) -> Array:
    """The GRU of `artifacts.gru_artifact`, `x` [batch, time, features], `h` [batch, hidden_size].

    ONNX's gates are update, reset, new; the new gate's recurrent bias is inside the reset
    (linear_before_reset=1), as torch has it.
    """
    graph = onnx.load(path).graph
    weights = {i.name: numpy_helper.to_array(i).astype(np.float64) for i in graph.initializer}
    w, r = weights["W"][0], weights["R"][0]
    bias_w, bias_r = np.split(weights["B"][0], 2)
    h = np.zeros((len(x), r.shape[1])) if h is None else h.astype(np.float64)
    frames = []
    for frame in np.moveaxis(x.astype(np.float64), 1, 0):
        update_x, reset_x, new_x = np.split(frame @ w.T + bias_w, 3, axis=1)
        update_h, reset_h, new_h = np.split(h @ r.T + bias_r, 3, axis=1)
        update, reset = _sigmoid(update_x + update_h), _sigmoid(reset_x + reset_h)
        h = (1 - update) * np.tanh(new_x + reset * new_h) + update * h
        frames.append(h)
    return np.stack(frames, axis=1)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))

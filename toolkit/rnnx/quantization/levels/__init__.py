"""The levels of quantization. A new level is one function in one file and one line here.

Weights stay right under every level; they differ in what is kept in the file and what computes:

    fp16-store   weights kept as float16, computed in float32     half the size
    int8-store   weights kept as int8, computed in float32        a quarter of the size
    int4-store   weights kept with four bits, in float32          a sixth of the size
    int8         RNN, GRU and LSTM compute in int8                a quarter of the size, faster
    int8-block   so, in blocks: neighbours change no bit either   a quarter of the size
    int4         so, with four bits, all else with eight          a sixth of the size, nearly
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx_ir as ir

from rnnx.quantization.change import Change, Given
from rnnx.quantization.levels import (
    fp16_store,
    int4,
    int4_store,
    int8,
    int8_block,
    int8_store,
)

LEVELS: Mapping[str, Callable[[ir.Model, Given], Change]] = {
    "fp16-store": fp16_store.apply,
    "int8-store": int8_store.apply,
    "int4-store": int4_store.apply,
    "int8": int8.apply,
    "int8-block": int8_block.apply,
    "int4": int4.apply,
}

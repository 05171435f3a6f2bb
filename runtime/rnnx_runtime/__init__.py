"""Runs rnnx artifacts on the device: the standard library, numpy and onnxruntime, nothing else.

What a single stream does not need is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rnnx_runtime.contract import Contract, Port, State, load_contract
from rnnx_runtime.errors import (
    ArtifactError,
    BusyError,
    ExportError,
    InputError,
    MissingExtraError,
    NotStreamableError,
    QuantizationError,
    RnnxError,
    SpecError,
    StreamError,
)
from rnnx_runtime.model import Model
from rnnx_runtime.stream import Stream

if TYPE_CHECKING:
    from rnnx_runtime.pool import StreamPool
    from rnnx_runtime.seq2seq import Seq2Seq

__all__ = [
    "ArtifactError",
    "BusyError",
    "Contract",
    "ExportError",
    "InputError",
    "MissingExtraError",
    "Model",
    "NotStreamableError",
    "Port",
    "QuantizationError",
    "RnnxError",
    "Seq2Seq",
    "SpecError",
    "State",
    "Stream",
    "StreamError",
    "StreamPool",
    "load_contract",
]

_HOMES = {"Seq2Seq": "seq2seq", "StreamPool": "pool"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rnnx_runtime' has no attribute {name!r}")
    return getattr(import_module(f"rnnx_runtime.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

"""Runs rnnx artifacts on the device: the standard library, numpy and onnxruntime, nothing else."""

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
from rnnx_runtime.pool import StreamPool
from rnnx_runtime.seq2seq import Seq2Seq
from rnnx_runtime.stream import Stream

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

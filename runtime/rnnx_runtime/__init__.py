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
    from rnnx_runtime.crf import ViterbiStream, viterbi
    from rnnx_runtime.ctc import CTCGreedySearch
    from rnnx_runtime.ctc_beam import CTCBeamSearch
    from rnnx_runtime.decoding import log_softmax
    from rnnx_runtime.hysteresis import Event, Hysteresis
    from rnnx_runtime.pool import StreamPool
    from rnnx_runtime.sampling import sample, sampling_probs
    from rnnx_runtime.seq2seq import Seq2Seq
    from rnnx_runtime.spans import Span, to_labels, to_seconds

__all__ = [
    "ArtifactError",
    "BusyError",
    "CTCBeamSearch",
    "CTCGreedySearch",
    "Contract",
    "Event",
    "ExportError",
    "Hysteresis",
    "InputError",
    "MissingExtraError",
    "Model",
    "NotStreamableError",
    "Port",
    "QuantizationError",
    "RnnxError",
    "Seq2Seq",
    "Span",
    "SpecError",
    "State",
    "Stream",
    "StreamError",
    "StreamPool",
    "ViterbiStream",
    "load_contract",
    "log_softmax",
    "sample",
    "sampling_probs",
    "to_labels",
    "to_seconds",
    "viterbi",
]

_HOMES = {
    "CTCBeamSearch": "ctc_beam",
    "CTCGreedySearch": "ctc",
    "Event": "hysteresis",
    "Hysteresis": "hysteresis",
    "Seq2Seq": "seq2seq",
    "Span": "spans",
    "StreamPool": "pool",
    "ViterbiStream": "crf",
    "log_softmax": "decoding",
    "sample": "sampling",
    "sampling_probs": "sampling",
    "to_labels": "spans",
    "to_seconds": "spans",
    "viterbi": "crf",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'rnnx_runtime' has no attribute {name!r}")
    return getattr(import_module(f"rnnx_runtime.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

"""rnnx: recurrent networks from PyTorch to the edge.

    rnnx.export(model, args, "model.onnx", streaming=True)
    rnnx.check("model.onnx", model)
    rnnx.quantize("model.onnx", "small.onnx", level="int8")
    stream = rnnx.Stream("small.onnx")
    y = stream.feed(x)

Importing rnnx loads neither torch nor onnx nor onnxruntime; each name loads what it needs when it
is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnx.parity import Report, check
    from rnnx.quantization import quantize
    from rnnx_exporters import export, export_seq2seq, to_streaming
    from rnnx_exporters.scan import scan
    from rnnx_runtime import (
        ArtifactError,
        BusyError,
        Contract,
        CTCBeamSearch,
        CTCGreedySearch,
        Event,
        ExportError,
        Hysteresis,
        InputError,
        MissingExtraError,
        Model,
        NotStreamableError,
        Port,
        QuantizationError,
        RnnxError,
        Seq2Seq,
        Span,
        SpecError,
        State,
        Stream,
        StreamError,
        StreamPool,
        ViterbiStream,
        load_contract,
        log_softmax,
        sample,
        sampling_probs,
        to_labels,
        to_seconds,
        viterbi,
    )

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
    "Report",
    "RnnxError",
    "Seq2Seq",
    "Span",
    "SpecError",
    "State",
    "Stream",
    "StreamError",
    "StreamPool",
    "ViterbiStream",
    "check",
    "export",
    "export_seq2seq",
    "load_contract",
    "log_softmax",
    "quantize",
    "sample",
    "sampling_probs",
    "scan",
    "to_labels",
    "to_seconds",
    "to_streaming",
    "viterbi",
]

_HOMES = {
    "Report": "rnnx.parity",
    "check": "rnnx.parity",
    "export": "rnnx_exporters",
    "export_seq2seq": "rnnx_exporters",
    "quantize": "rnnx.quantization",
    "scan": "rnnx_exporters.scan",
    "to_streaming": "rnnx_exporters",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rnnx")
    if name not in __all__:
        raise AttributeError(f"module 'rnnx' has no attribute {name!r}")
    return getattr(_load(_HOMES.get(name, "rnnx_runtime")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _load(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        from rnnx.extras import explain

        raise explain(error) from error

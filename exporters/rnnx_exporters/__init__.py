"""Makes artifacts: a torch model becomes an ONNX graph, and an ONNX graph a streaming graph."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnx_exporters.seq2seq import export_seq2seq
    from rnnx_exporters.streaming import to_streaming
    from rnnx_exporters.torch_export import export

__all__ = ["export", "export_seq2seq", "to_streaming"]

_HOMES = {"export": "torch_export", "export_seq2seq": "seq2seq", "to_streaming": "streaming"}


def __getattr__(name: str) -> Any:
    """Load torch only for exports: converting an ONNX file needs none."""
    if name not in _HOMES:
        raise AttributeError(f"module 'rnnx_exporters' has no attribute {name!r}")
    return getattr(import_module(f"rnnx_exporters.{_HOMES[name]}"), name)

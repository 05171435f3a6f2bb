"""Every failure rnnx raises on purpose.

RnnxError
├── ArtifactError           a file that is missing, not ONNX, without a contract, or damaged
├── InputError              an array, file or option that does not fit what the artifact takes
├── StreamError             a stream used against its order: fed after flush, a foreign snapshot
│   └── BusyError           a pool that has no room: a full queue, no live stream to put aside
├── ExportError             a torch model that cannot become an artifact
│   └── NotStreamableError  a network that cannot run frame after frame
├── QuantizationError       a quantization that would change nothing or break the network
├── SpecError               a model specification that names nothing usable
└── MissingExtraError       a package of an optional extra is not installed
"""


class RnnxError(Exception):
    """Base of all rnnx errors: `str(error)` says what and where, `hint` what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ArtifactError(RnnxError):
    """The file is missing, is not ONNX, has no contract, or its contract is damaged."""


class InputError(RnnxError, ValueError):
    """A value does not fit: wrong name, dtype, shape, length or content."""


class StreamError(RnnxError):
    """A stream was used against its order, or a snapshot belongs elsewhere."""


class BusyError(StreamError):
    """A pool has no room for more frames or streams now; later it may have."""


class ExportError(RnnxError):
    """The torch model cannot become an artifact."""


class NotStreamableError(ExportError):
    """The network cannot run frame after frame; names the node and the reason."""


class QuantizationError(RnnxError):
    """Quantization would change nothing, or the result failed its own check."""


class SpecError(RnnxError):
    """A model specification such as `file.py:factory` names nothing usable."""


class MissingExtraError(RnnxError):
    """A package of an optional extra is not installed."""

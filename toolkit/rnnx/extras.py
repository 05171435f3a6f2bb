"""Which optional extra brings which package, and the error that says so."""

from importlib import import_module
from typing import Any

from rnnx_runtime.errors import MissingExtraError

_EXTRA_OF = {
    "torch": "export",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "matplotlib": "report",
    "vega_datasets": "recipes",
    "jiwer": "recipes",
    "sacrebleu": "recipes",
    "rouge_score.rouge_scorer": "recipes",
    "soundfile": "audio",
    "soxr": "audio",
    "sounddevice": "audio",
}


def explain(error: ModuleNotFoundError) -> ModuleNotFoundError | MissingExtraError:
    """The error to raise instead of `error`: it names the extra where the package is ours."""
    package = (error.name or "").partition(".")[0]
    extra = _EXTRA_OF.get(package)
    if extra is None:
        return error
    return MissingExtraError(
        f"this needs the package {package!r}, which is not installed",
        hint=f"pip install 'rnnx[{extra}]'",
    )


def load(package: str, purpose: str) -> Any:
    """The package of an optional extra, which ships no types.

    Raises:
        MissingExtraError: it is not installed; says for what `purpose` it is needed.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{purpose} needs the package {package!r}, which is not installed",
            hint=f"pip install 'rnnx[{_EXTRA_OF[package]}]'",
        ) from error

"""Model: one artifact, opened once, shared by all its streams and by threads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import ArtifactError, InputError
from rnnx_runtime.session import open_session, read_contract
from rnnx_runtime.step import METADATA_KEY, Step, open_step

if TYPE_CHECKING:
    from rnnx_runtime.seats import Seats
    from rnnx_runtime.stream import Stream

Array = npt.NDArray[Any]


class Model:
    """One artifact in one onnxruntime session.

    A model holds no state of any stream, so threads may share it.

    Args:
        path: the artifact, an ONNX file that rnnx wrote.

    Raises:
        ArtifactError: the file is missing, is not ONNX, or carries no valid contract.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self.session = open_session(path)
        self.contract: Contract = read_contract(self.session, path)

    @cached_property
    def step(self) -> Step | None:
        """The step form, opened when the first step is taken; None where the artifact has none."""
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        return open_step(text, self.path)

    @cached_property
    def seats(self) -> Seats:
        """The buffers that the streams of this model share."""
        from rnnx_runtime.seats import Seats

        return Seats(self)

    def stream(self, *, batch: int = 1, strict: bool = False, copy: bool = True) -> Stream:
        """A new stream of `batch` sequences that advance together; see `Stream`."""
        from rnnx_runtime.stream import Stream

        return Stream(self, batch=batch, strict=strict, copy=copy)

    def run(self, feeds: Array | Mapping[str, Array]) -> Array | dict[str, Array]:
        """Run the graph once over whole sequences; states begin at their start values.

        Args:
            feeds: one array where the artifact has one input, else arrays by name.

        Returns:
            One array where the artifact has one output, else a dict by name.

        Raises:
            InputError: an array does not fit its input, or has no frame or no sequence.
        """
        arrays = fit_inputs(self.contract, feeds)
        refuse_empty(self.contract, arrays)
        batch = size_along(self.contract, arrays, "batch") or 1
        if self.contract.lags:  # the last frames come when the sequence ends
            from rnnx_runtime.stream import feed_whole

            frames = size_along(self.contract, arrays, "time") or 0
            return unwrap(feed_whole(self.stream(batch=batch), arrays, [frames]))
        refuse_short(self.contract, arrays)
        states = {state.input_name: state.start(batch=batch) for state in self.contract.states}
        names = [port.name for port in self.contract.outputs]
        return unwrap(run_session(self, names, {**arrays, **states}))

    def __repr__(self) -> str:
        return f"Model({self.path!r})"


def run_session(model: Model, names: list[str], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """One run of the session: outputs by name.

    Raises:
        InputError: onnxruntime failed.
    """
    try:
        results = model.session.run(names, dict(feeds))
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise InputError(f"onnxruntime failed on these inputs: {error}") from error
    return dict(zip(names, results, strict=True))


def fit_inputs(contract: Contract, feeds: Array | Mapping[str, Array]) -> dict[str, Array]:
    """The arrays by input name, each held against its port.

    Raises:
        InputError: a name is missing or unknown, or a dtype, rank or size does not fit.
    """
    named = _by_name(contract, feeds)
    arrays = {port.name: fit(port, named[port.name]) for port in contract.inputs}
    for axis in ("batch", "time"):
        size_along(contract, arrays, axis)
    return arrays


def fit(port: Port, value: Any) -> Array:
    """`value` as an array of the port's dtype and shape.

    Raises:
        InputError: it has another dtype, rank, or size of a fixed axis.
    """
    array = value if isinstance(value, np.ndarray) else _converted(port, value)
    if array.dtype != port.dtype:
        raise InputError(
            f"input {port.name!r} is {array.dtype}, but the artifact takes {port.dtype}",
            hint=f"Convert it: x.astype(np.{port.dtype}).",
        )
    # How many frames a call takes is the stream's concern, where that is fixed.
    fixed = [a for a, d in enumerate(port.dims) if isinstance(d, int) and a != port.time_axis]
    fits = array.ndim == len(port.dims) and all(array.shape[a] == port.dims[a] for a in fixed)
    if not fits:
        raise InputError(
            f"input {port.name!r} has shape {list(array.shape)}, but the artifact takes"
            f" [{', '.join(map(str, port.dims))}]",
            hint=f"Give an array of {len(port.dims)} axes in that order.",
        )
    return array


def size_along(contract: Contract, arrays: Mapping[str, Array], axis: str) -> int | None:
    """The common size of all inputs along their `"batch"` or `"time"` axis; None without one.

    Raises:
        InputError: two inputs disagree.
    """
    sizes = {
        port.name: arrays[port.name].shape[position] * (port.stride if axis == "time" else 1)
        for port in contract.inputs
        if (position := getattr(port, f"{axis}_axis")) is not None
    }
    if len(set(sizes.values())) > 1 or any(size != int(size) for size in sizes.values()):
        shown = {name: str(size) for name, size in sizes.items()}
        raise InputError(f"the inputs disagree in their {axis} axis: {shown}")
    return next((int(size) for size in sizes.values()), None)


def refuse_empty(contract: Contract, arrays: Mapping[str, Array]) -> None:
    """Refuse inputs without any frame or sequence.

    onnxruntime aborts the whole process on a GRU of no frames and on a GRU or LSTM of no sequences.

    Raises:
        InputError: the batch or the time axis is empty.
    """
    for axis, what in (("batch", "sequence"), ("time", "frame")):
        if size_along(contract, arrays, axis) == 0:
            raise InputError(f"the inputs hold no {what}: their {axis} axis has length 0")


def refuse_short(contract: Contract, arrays: Mapping[str, Array]) -> None:
    """Refuse sequences of fewer frames than leave one behind the strides of the network.

    Raises:
        InputError: they are too short.
    """
    frames = size_along(contract, arrays, "time")
    if frames is not None and frames < contract.first_chunk:
        raise InputError(
            f"the inputs hold {frames} frames, the network needs {contract.first_chunk} or more",
            hint="Give longer sequences, or pad them.",
        )


def unwrap(results: dict[str, Array]) -> Array | dict[str, Array]:
    """The only value where there is one, else the dict."""
    return next(iter(results.values())) if len(results) == 1 else results


def named(contract: Contract, result: Array | dict[str, Array]) -> dict[str, Array]:
    """What `unwrap` made of results by name, by name again."""
    return result if isinstance(result, dict) else {contract.outputs[0].name: result}


def _by_name(contract: Contract, feeds: Array | Mapping[str, Array]) -> Mapping[str, Any]:
    expected = [port.name for port in contract.inputs]
    if not isinstance(feeds, Mapping):
        if len(expected) != 1:
            raise InputError(
                f"the artifact has {len(expected)} inputs: {', '.join(expected)}",
                hint="Give a dict of arrays by input name.",
            )
        return {expected[0]: feeds}
    missing = [name for name in expected if name not in feeds]
    unknown = [name for name in feeds if name not in expected]
    if missing or unknown:
        raise InputError(
            f"the artifact's inputs are {', '.join(expected)}; missing: {missing},"
            f" unknown: {unknown}",
            hint="Give one array by each of these names.",
        )
    return feeds


def _converted(port: Port, value: Any) -> Array:
    try:
        return np.asarray(value, dtype=port.dtype)
    except (TypeError, ValueError) as error:
        raise InputError(f"input {port.name!r} is not an array of {port.dtype}: {error}") from error


def describe_missing_stream(path: str) -> ArtifactError:
    """The error for an artifact that was exported for whole sequences."""
    return ArtifactError(
        f"{path!r} is an offline artifact: it takes whole sequences and carries no state",
        hint="Export it with streaming=True (`rnnx export --streaming`).",
    )

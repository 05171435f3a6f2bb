"""Proves a graph before it is written: against torch, and streaming against offline."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from rnnx_exporters.artifact import is_large, write_in
from rnnx_exporters.compare import ATOL, compare
from rnnx_exporters.describe import BATCH, TIME, describe
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import ExportError, NotStreamableError
from rnnx_runtime.model import Model
from rnnx_runtime.samples import random_inputs
from rnnx_runtime.stream import Stream

if TYPE_CHECKING:  # a stream is made and proven without torch
    import torch

    from rnnx_exporters.assumptions import Assumption
    from rnnx_exporters.layout import Layout

Array = npt.NDArray[Any]

# Batch and length pairs that no example is likely to have, one of each among them.
_SIZES = ((3, 7), (1, 1), (4, 23))
# The causality probe: of how many frames, which is changed.
_PROBED, _AT = 9, 4


def prove_export(
    model: ir.Model,
    module: torch.nn.Module,
    layout: Layout,
    assumptions: Iterable[Assumption] = (),
) -> float:
    """Run graph and module at several batches and lengths.

    Args:
        model: the tidied graph.
        module: the network it was exported from.
        layout: the example and its free axes.
        assumptions: what torch assumed of the axes' sizes; where one is false, the graph is run
            as well.

    Returns:
        The largest difference of any output.

    Raises:
        ExportError: they differ, or the module runs at no other size than the example's.
    """
    session = session_of(model)
    example, *others = runnable(module, layout)
    worst = _hold(session, example, _flat(module(*example.args)))
    for assumption in assumptions:
        for sizes in assumption.false_sizes(layout.sizes):
            _prove_without(assumption, session, module, layout.resized(sizes))
    return max([worst, *(_hold(session, sized, _flat(module(*sized.args))) for sized in others)])


def _prove_without(
    assumption: Assumption, session: ort.InferenceSession, module: torch.nn.Module, sized: Layout
) -> None:
    """Run graph and module at sizes where the assumption is false, if the module can."""
    try:
        reference = _flat(module(*sized.args))
    except Exception:  # torch needs the assumption too
        return
    try:
        _hold(session, sized, reference)
    except ExportError as error:
        raise ExportError(
            f"the model freezes a free axis at {assumption.line}"
            f" ({assumption.condition} holds in the graph, but not at {sized.sizes})",
            hint="Let no size decide what the model computes.",
        ) from error


def session_of(model: ir.Model) -> ort.InferenceSession:
    """An onnxruntime session over a graph in memory.

    Raises:
        ExportError: onnxruntime does not accept the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        if not is_large(model):
            return _open(ir.to_proto(model).SerializeToString(), options)
        with tempfile.TemporaryDirectory() as folder:
            write_in(model, Path(folder), "model.onnx")
            return _open(str(Path(folder) / "model.onnx"), options)
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ExportError(f"onnxruntime does not accept the exported graph: {error}") from error


def _open(source: str | bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def runnable(module: torch.nn.Module, layout: Layout) -> Iterator[Layout]:
    """The example and its resized forms that the module itself can run."""
    yield layout
    sizes = layout.sizes
    found = list(_running(module, layout, _SIZES))
    if not found:  # too short, or of a length that the model cannot divide
        frames = sizes.get(TIME, 1)
        found = list(_running(module, layout, ((3, 2 * frames), (1, 3 * frames))))
    yield from found
    if sizes and not found:
        raise ExportError(
            "the model runs at the example's sizes only, so nothing can be proven at others",
            hint="Run it by hand with another batch and length; see what it raises.",
        )


def _running(
    module: torch.nn.Module, layout: Layout, sizes: Iterable[tuple[int, int]]
) -> Iterator[Layout]:
    for batch, frames in sizes:
        sized = layout.resized({BATCH: batch, TIME: frames})
        try:
            module(*sized.args)
        except Exception:  # too short for a convolution, say: not the exporter's matter
            continue
        yield sized


def _hold(session: ort.InferenceSession, sized: Layout, reference: Sequence[Array]) -> float:
    arrays = [tensor.detach().cpu().numpy() for tensor, _ in sized.tensors()]
    names = [node.name for node in session.get_inputs()]
    try:
        results = session.run(None, dict(zip(names, arrays, strict=True)))
    except Exception as error:  # onnxruntime raises many unrelated classes
        raise ExportError(
            f"onnxruntime cannot run the exported graph at sizes {sized.sizes}: {error}",
            hint="It runs recurrent operators in float32; convert the model with model.float().",
        ) from error
    worst = 0.0
    for node, actual, expected in zip(session.get_outputs(), results, reference, strict=True):
        found = compare(actual, expected)
        if not found.passed:
            raise ExportError(
                f"output {node.name!r} differs from the model at sizes {sized.sizes}:"
                f" {found.reason or f'by {found.max_abs:.2e} at {list(found.index or ())}'}",
                hint="The model may be random or keep state of its own between calls.",
            )
        worst = max(worst, found.max_abs)
    return worst


def _flat(outputs: Any) -> list[Array]:
    import torch
    from torch.utils import _pytree as pytree

    leaves = pytree.tree_leaves(outputs)
    return [np.asarray(leaf.detach().cpu()) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def run_constant(model: ir.Model, value: ir.Value) -> Array:
    """The value of a wire that depends on no input's content, for two sequences of two frames."""
    if value.const_value is not None:
        return value.const_value.numpy()
    part = ir.convenience.extract(model.graph, list(model.graph.inputs), [value])
    session = session_of(ir.Model(part, ir_version=model.ir_version))
    feeds = random_inputs(describe(model), np.random.default_rng(0), batch=2, frames=2)
    result: Array = session.run(None, feeds)[0]
    return result


def prove_streaming(offline: ir.Model, path: Path, contract: Contract) -> None:
    """Run the streaming artifact at `path`, in random chunks, against the offline graph.

    Raises:
        NotStreamableError: they differ, or a frame reaches an output before itself.
    """
    rng = np.random.default_rng(0)
    model, session = Model(path), session_of(offline)
    free = any(port.batch_axis is not None for port in contract.inputs)
    for batch, frames in ((1, 1), (1, 13), (3, 29)):
        feeds = random_inputs(contract, rng, batch=batch if free else 1, frames=frames)
        expected = _run_offline(session, feeds, contract)
        for _ in range(3):
            stream = model.stream(batch=batch if free else 1)
            _hold_stream(contract, _in_chunks(stream, feeds, rng), expected)
    _hold_causality(session, contract, rng)


def _run_offline(
    session: ort.InferenceSession, feeds: Mapping[str, Array], contract: Contract
) -> dict[str, Array]:
    """The offline graph's outputs by name, its own initial states at zero."""
    batch = next(
        (feeds[p.name].shape[p.batch_axis] for p in contract.inputs if p.batch_axis is not None), 1
    )
    zeros = {
        node.name: np.zeros([d if isinstance(d, int) else batch for d in node.shape], np.float32)
        for node in session.get_inputs()
        if node.name not in feeds
    }
    names = [port.name for port in contract.outputs]
    results = session.run(names, {**feeds, **zeros})
    return dict(zip(names, results, strict=True))


def _in_chunks(
    stream: Stream, feeds: Mapping[str, Array], rng: np.random.Generator
) -> dict[str, Array]:
    """The stream's outputs over the whole of `feeds`, fed in random chunks, tail included."""
    contract = stream.model.contract
    timed = {p.name: p.time_axis for p in contract.inputs if p.time_axis is not None}
    frames = min(feeds[name].shape[axis] for name, axis in timed.items())
    pieces: list[dict[str, Array]] = []
    start = 0
    while start < frames:
        stop = min(frames, start + int(rng.integers(1, 8)))
        chunk = {
            name: x.take(range(start, stop), timed[name]) if name in timed else x
            for name, x in feeds.items()
        }
        pieces.append(_named(contract, stream.feed(chunk)))
        start = stop
    pieces.append(_named(contract, stream.flush()))
    return {port.name: _joined(port, pieces) for port in contract.outputs}


def _named(contract: Contract, result: Array | dict[str, Array]) -> dict[str, Array]:
    return result if isinstance(result, dict) else {contract.outputs[0].name: result}


def _joined(port: Port, pieces: Sequence[Mapping[str, Array]]) -> Array:
    values = [piece[port.name] for piece in pieces]
    return values[-1] if port.time_axis is None else np.concatenate(values, port.time_axis)


def _hold_stream(
    contract: Contract, actual: Mapping[str, Array], expected: Mapping[str, Array]
) -> None:
    for port in contract.outputs:
        found = compare(actual[port.name], expected[port.name])
        if not found.passed:
            raise _untimely(
                f"fed in chunks, output {port.name!r} differs from the whole sequence:"
                f" {found.reason or f'by {found.max_abs:.2e}'} at index {list(found.index or ())}"
            )


def _hold_causality(
    session: ort.InferenceSession, contract: Contract, rng: np.random.Generator
) -> None:
    """A changed frame must change no output frame before it.

    The change is a loud value, not NaN: onnxruntime's GRU and LSTM clamp NaN away in their gates.
    """
    feeds = random_inputs(contract, rng, batch=1, frames=_PROBED)
    quiet = _run_offline(session, feeds, contract)
    for port in contract.inputs:
        if port.time_axis is None:
            continue
        loud = _run_offline(session, {**feeds, port.name: _loud(port, feeds[port.name])}, contract)
        changed = {p.name: _changed(p, quiet[p.name], loud[p.name]) for p in contract.outputs}
        early = [name for name, frames in changed.items() if frames and min(frames) < _AT]
        if early:
            raise _untimely(f"frame {_AT} of {port.name!r} reaches earlier frames of {early[0]!r}")


def _loud(port: Port, value: Array) -> Array:
    """`value` with another content at frame `_AT`."""
    loud = value.copy()
    frames = np.moveaxis(loud, port.time_axis or 0, 0)
    frames[_AT] = 30 if value.dtype.kind == "f" else (frames[_AT] + 1) % (port.num_embeddings or 2)
    return loud


def _changed(port: Port, quiet: Array, loud: Array) -> list[int]:
    """The frames of an output that differ; a value without frames counts as the last one."""
    different = np.abs(loud.astype(np.float64) - quiet.astype(np.float64)) > ATOL
    if port.time_axis is None:
        return [_PROBED] if different.any() else []
    others = tuple(axis for axis in range(different.ndim) if axis != port.time_axis)
    return [int(frame) for frame in np.flatnonzero(different.any(others))]


def _untimely(message: str) -> NotStreamableError:
    return NotStreamableError(message, hint="This is a fault in rnnx; please report the model.")

"""Proves a graph before it is written: against torch, at several batches and lengths."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime as ort

from rnnx_exporters.artifact import is_large, write_in
from rnnx_exporters.compare import compare
from rnnx_exporters.describe import BATCH, TIME
from rnnx_runtime.errors import ExportError

if TYPE_CHECKING:  # a stream is made and proven without torch
    import torch

    from rnnx_exporters.assumptions import Assumption
    from rnnx_exporters.layout import Layout

Array = npt.NDArray[Any]

# Batch and length pairs that no example is likely to have, one of each among them.
_SIZES = ((3, 7), (1, 1), (4, 23))


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

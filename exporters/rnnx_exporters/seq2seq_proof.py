"""Proves an exported encoder-decoder as a whole: both files, through the runner, against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnnx_exporters.compare import ATOL, RTOL, compare
from rnnx_exporters.layout import Layout
from rnnx_exporters.proof import runnable
from rnnx_runtime.errors import ExportError
from rnnx_runtime.model import Model
from rnnx_runtime.seq2seq import Seq2Seq

# A network that never ends need not be followed for ever.
_MOST_STEPS = 32


def prove_generation(
    model: Any, encoder: torch.nn.Module, runner: Seq2Seq, layout: Layout
) -> float:
    """Hold greedy ids and their logits against torch at several batches and ragged lengths.

    Args:
        model: the network, with `encode` and `step`.
        encoder: its encoder as a module.
        runner: the exported folder.
        layout: src and lengths, and their free axes.

    Returns:
        The largest difference of any logit.

    Raises:
        ExportError: logits or ids differ.
    """
    return max(_hold(model, runner, *sized.args) for sized in runnable(encoder, layout))


def prove_loop(path: Path, encoder: torch.nn.Module, runner: Seq2Seq, layout: Layout) -> None:
    """Hold the single graph of the greedy loop against the runner.

    Args:
        path: the graph's file.
        encoder: the network's encoder as a module.
        runner: the exported folder.
        layout: src and lengths, and their free axes.

    Raises:
        ExportError: ids or scores differ.
    """
    model, end = Model(path), runner.contract.end
    for sized in runnable(encoder, layout):
        src, lengths = (tensor.numpy() for tensor in sized.args)
        expected = runner.generate(src, lengths)
        results = model.run({"src": src, "lengths": lengths})
        assert isinstance(results, dict)
        scores = results["scores"]
        found = [row[row != end].tolist() for row in results["ids"]]
        near = compare(scores, expected.scores.astype(scores.dtype))
        if found != [ids.tolist() for ids in expected.ids] or not near.passed:
            raise ExportError(
                f"{path.name} gives {found} instead of {expected} for src of shape"
                f" {list(src.shape)}",
                hint="This is a fault in rnnx; please report the model.",
            )


def _hold(model: Any, runner: Seq2Seq, src: Tensor, lengths: Tensor) -> float:
    logits, worst = _hold_logits(model, runner, src, lengths)
    generated, _ = runner.generate(src.numpy(), lengths.numpy(), max_length=len(logits))
    end = runner.contract.end
    for row, found in enumerate(generated):
        expected, decisive = _greedy(logits[:, row], end)
        if decisive and found.tolist() != expected:
            raise ExportError(
                f"source {row} of {len(src)} gives the ids {found.tolist()} instead of {expected}",
                hint="This is a fault in rnnx; please report the model.",
            )
    return worst


def _hold_logits(model: Any, runner: Seq2Seq, src: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
    """The logits of torch's greedy steps, [steps, batch, vocabulary], and how far ours are."""
    memory, state = model.encode(src, lengths)
    our_memory, our_state = runner.encode(src.numpy(), lengths.numpy())
    token = torch.full(src.shape[:1], runner.contract.start)
    history, worst = [], 0.0
    for position in range(min(runner.contract.max_length, _MOST_STEPS)):
        ours, our_state = runner.step(token.numpy(), our_state, our_memory)
        logits, state = model.step(token, state, memory)
        # Logits are sums of large terms: float32 rounds by the largest, not by what they come to.
        found = compare(ours, logits.numpy(), slack=ATOL * float(logits.abs().max()))
        if not found.passed:
            raise ExportError(
                f"the logits of step {position} differ from the model's for src of shape"
                f" {list(src.shape)}: {found.reason or f'by {found.max_abs:.2e}'}",
                hint="The model may be random or keep state of its own between calls.",
            )
        worst = max(worst, found.max_abs)
        history.append(logits)
        token = logits.argmax(-1)
    return torch.stack(history), worst


def _greedy(logits: Tensor, end: int) -> tuple[list[int], bool]:
    """The ids of one source from its logits [steps, vocabulary]; whether none is a near tie."""
    ids = logits.argmax(-1).tolist()
    count = ids.index(end) if end in ids else len(ids)
    best, second = logits[: count + 1].topk(2).values.unbind(-1)
    decisive = best - second > 2 * (ATOL + RTOL * best.abs())
    return ids[:count], bool(decisive.all())

"""The user's own metric, of the artifact and of the reference, over the user's sequences."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean

from rnnx.parity.metric import Metric
from rnnx.parity.recordings import Recording
from rnnx.parity.report import Finding
from rnnx.parity.trial import Arrays, Trial


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    return "no metric was given" if trial.metric is None else None


def probe(trial: Trial) -> Iterator[Finding]:
    """The mean over the recordings, of the artifact run as deployed, and of the reference."""
    metric = trial.metric
    assert metric is not None
    pairs = [_figures(trial, metric, recording) for recording in trial.recordings]
    figure, reference = (fmean(figures) for figures in zip(*pairs, strict=True))
    passed = metric.passes(figure, reference)
    finding = trial.verdict("metric", metric.name, {"recordings": len(pairs)}, None)
    yield replace(
        finding,
        passed=passed,
        max_abs=abs(figure - reference),
        required_atol=0.0 if passed else float("inf"),
        reason=f"{figure:.6g}, the reference {reference:.6g}; asked for: {metric.limits}",
    )


def _figures(trial: Trial, metric: Metric, recording: Recording) -> tuple[float, float]:
    """Of the artifact and of the reference."""
    feeds, given = recording.inputs, recording.inputs | recording.labels
    outputs, _ = trial.reference.run(feeds)
    return metric.figure(_deployed(trial, recording), given), metric.figure(outputs, given)


def _deployed(trial: Trial, recording: Recording) -> Arrays:
    """The artifact's outputs: in chunks where it streams."""
    if not trial.contract.streaming:
        return trial.run(recording.inputs)
    chunks = itertools.repeat(trial.chunk)
    outputs = trial.stream(recording.inputs, chunks, batch=recording.batch)
    return {port.name: outputs[port.name] for port in trial.contract.outputs}

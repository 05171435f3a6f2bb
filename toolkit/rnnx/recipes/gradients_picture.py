"""The pictures of `rnnx demo gradients`: the gradient's norm by distance, the loss by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnx.picture_file import save
from rnnx.recipes.gradients import LAST, TRUNCATED, Losses, Trace

_FLOOR = 1e-12  # what is less is not drawn

Line = Callable[[Trace], Losses]


def draw_gradients(path: Path, traces: Sequence[Trace]) -> None:
    """Draw a row for each task: first weights on the left, trained ones on the right; PNG."""
    columns: dict[str, Line] = {
        "first weights": lambda trace: np.maximum(trace.initial, _FLOOR),
        "trained": lambda trace: np.maximum(trace.trained, _FLOOR),
    }
    figure = _figure(traces, columns)
    for axes in figure.axes:
        _mark_truncation(axes)
    figure.supxlabel("frames before the end")
    figure.supylabel("norm of the gradient by the state")
    save(figure, path)


def draw_learning(path: Path, traces: Sequence[Trace]) -> None:
    """Draw a row for each task: full backpropagation on the left, truncated on the right; PNG."""
    columns: dict[str, Line] = {
        "full": lambda trace: _smooth(trace.full / trace.naive),
        f"truncated to {TRUNCATED} frames": lambda trace: _smooth(trace.truncated / trace.naive),
    }
    figure = _figure(traces, columns)
    for axes in figure.axes:
        axes.axhline(1, color="0.6", linestyle=":")
    figure.supxlabel("batches")
    figure.supylabel("loss, relative to that of an answer that does not look")
    save(figure, path)


def _figure(traces: Sequence[Trace], columns: Mapping[str, Line]) -> Figure:
    """A row for each task, a line for each network, on a logarithmic scale."""
    tasks = list(dict.fromkeys(trace.task for trace in traces))
    figure = Figure(figsize=(9, 3.4 * len(tasks)), dpi=80, layout="constrained")
    grid = figure.subplots(len(tasks), len(columns), sharex=True, sharey=True, squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        title, line = list(columns.items())[column]
        axes.set_title(f"{tasks[row]}, {title}")
        for trace in traces:
            if trace.task == tasks[row]:
                axes.semilogy(line(trace), label=trace.network)
    grid[0, 0].legend(loc="lower left", fontsize=9)
    return figure


def _mark_truncation(axes: Axes) -> None:
    axes.axvline(TRUNCATED, color="0.6", linestyle=":")
    axes.annotate(
        "truncated here",
        (TRUNCATED, 1),
        (4, -2),
        textcoords="offset points",
        xycoords=("data", "axes fraction"),
        color="0.4",
        fontsize=8,
        va="top",
    )


def _smooth(losses: Losses) -> Losses:
    """The mean of each batch and those before it, `LAST` in all."""
    return np.convolve(losses, np.full(LAST, 1 / LAST), "valid")

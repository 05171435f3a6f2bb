"""The picture of `rnnx demo gradients`: the gradient's norm by distance, on a logarithmic scale."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnnx.recipes.gradients import TRUNCATED, Norms, Trace
from rnnx_runtime.files import replacing

_FLOOR = 1e-12  # what is less is not drawn


def draw(path: Path, traces: Sequence[Trace]) -> None:
    """Draw a row for each task: first weights on the left, trained ones on the right; PNG."""
    tasks = list(dict.fromkeys(trace.task for trace in traces))
    figure = Figure(figsize=(9, 3.4 * len(tasks)), dpi=80, layout="constrained")
    grid = figure.subplots(len(tasks), 2, sharex=True, sharey=True, squeeze=False)
    for row, task in zip(grid, tasks, strict=True):
        of_task = [trace for trace in traces if trace.task == task]
        _draw_norms(row[0], f"{task}, first weights", {t.network: t.initial for t in of_task})
        _draw_norms(row[1], f"{task}, trained", {t.network: t.trained for t in of_task})
    grid[0, 0].legend(loc="lower left", fontsize=9)
    figure.supxlabel("frames before the end")
    figure.supylabel("norm of the gradient by the state")
    with replacing(path) as beside:
        figure.savefig(beside)


def _draw_norms(axes: Axes, title: str, lines: dict[str, Norms]) -> None:
    axes.set_title(title)
    for name, norms in lines.items():
        axes.semilogy(np.maximum(norms, _FLOOR), label=name)
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

"""The picture of a search: what was measured, by size and by what it keeps of the original."""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox, BboxBase

from rnnx.picture_file import save
from rnnx.quantization.budget import METRIC, Budget
from rnnx.quantization.report import Point, QuantizationReport

Array = npt.NDArray[Any]

_NEAR = 9.0  # pixels: what is nearer shares a name
_LINE = 36  # letters of names in a line, so that they fit in beside a place
_DISTANCES = (7, 14, 24, 36, 50, 66)  # of a name from its place, in points
_SIDES = (("left", "top"), ("right", "bottom"), ("left", "bottom"), ("right", "top"))
_AWAY = {"left": 1, "right": -1, "bottom": 1, "top": -1}  # the left side of a text stands right


def draw(path: str | os.PathLike[str], report: QuantizationReport) -> None:
    """Draw size against the worst SNR, or against the metric where the budget is one of it.

    Args:
        path: the file to write; its ending tells the format (.png, .svg, .pdf).
        report: of level auto.

    Raises:
        InputError: the file has another ending.
    """
    budget = Budget.parse(report.budget or "").from_reference(report.source_figure)
    figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    _draw_points(axes, report, budget)
    _draw_budget(axes, report, budget)
    _label_axes(axes, report, budget)
    figure.draw_without_rendering()  # from here on, places on the paper are known
    _name_points(axes, report, budget)
    save(figure, path)


def _draw_points(axes: Axes, report: QuantizationReport, budget: Budget) -> None:
    beaten = [point for point in report.levels if point not in report.front]
    front = _places(report.front, budget)
    axes.plot(*front, drawstyle="steps-post", color="0.4", linewidth=1)
    axes.plot(*front, "o", color="tab:blue", label="nothing else is better in both")
    axes.plot(*_places(beaten, budget), "s", color="0.4", fillstyle="none", label="beaten")
    taken = [point for point in report.front if point == report.chosen]
    axes.plot(*_places(taken, budget), "*", color="tab:red", markersize=15, label="taken")


def _draw_budget(axes: Axes, report: QuantizationReport, budget: Budget) -> None:
    style: dict[str, Any] = {
        "color": "0.4",
        "linestyle": ":",
        "linewidth": 1.2,
        "label": f"budget {budget}",
    }
    if budget.kind == "size":
        axes.axvline(budget.amount / 1024, **style)
    else:
        axes.axhline(budget.limit, **style)
    if budget.kind == METRIC:
        axes.axhline(budget.reference, color="0.4", linewidth=0.8, label="the original")


def _label_axes(axes: Axes, report: QuantizationReport, budget: Budget) -> None:
    size = report.source_bytes / 1024
    axes.set_title(f"What was measured; in float32 the file has {size:.1f} KB", fontsize=10)
    axes.set_xlabel("size of the file (KB)")
    axes.set_ylabel("SNR of the worst output or state (dB)")
    if budget.kind == METRIC:
        side = "lower" if budget.lower_is_better else "higher"
        axes.set_ylabel(f"{report.metric} ({side} is better)")
    if budget.kind == METRIC and budget.lower_is_better:
        axes.invert_yaxis()  # better is up
    axes.margins(0.12)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.figure.legend(loc="outside lower center", ncols=5, fontsize=9, frameon=False)


def _places(points: Sequence[Point], budget: Budget) -> tuple[list[float], list[float]]:
    measured = [(p.bytes / 1024, y) for p in points if (y := budget.measured(p)) is not None]
    return [x for x, _ in measured], [y for _, y in measured]


def _name_points(axes: Axes, report: QuantizationReport, budget: Budget) -> None:
    """Write names beside the levels and what was taken, none over another or over a point."""
    mixtures = [point for point in report.front if point.bits and point == report.chosen]
    named = [p for p in (*report.levels, *mixtures) if budget.measured(p) is not None]
    boxes = [_square(place) for place in _on_paper(axes, [*report.front, *report.levels], budget)]
    for group in _grouped(axes, named, budget):
        for text in _candidates(axes, group, budget):
            box = _extent(text)
            if _is_inside(box, axes.bbox) and not box.count_overlaps(boxes):
                boxes.append(box)
                break
            text.remove()


def _on_paper(axes: Axes, points: Sequence[Point], budget: Budget) -> Array:
    """Where points stand, in pixels, `[points, 2]`."""
    return np.asarray(axes.transData.transform(np.transpose(_places(points, budget))))


def _square(place: Array) -> Bbox:
    return Bbox([place - _NEAR, place + _NEAR])


def _grouped(axes: Axes, points: Sequence[Point], budget: Budget) -> list[list[Point]]:
    """Those together that stand at about the same place."""
    groups: list[list[Point]] = []
    for point in points:
        here = _on_paper(axes, [point], budget)
        near = [g for g in groups if np.abs(_on_paper(axes, g[:1], budget) - here).max() < _NEAR]
        if near:
            near[0].append(point)
        else:
            groups.append([point])
    return groups


def _candidates(axes: Axes, points: Sequence[Point], budget: Budget) -> Iterator[Annotation]:
    """The names of points at one place, written on each side of it, near at first."""
    (x,), (y,) = _places(points[:1], budget)
    names = ", ".join(dict.fromkeys(point.name for point in points))
    lines = textwrap.wrap(names, _LINE, break_on_hyphens=False)
    for distance, (side, edge) in itertools.product(_DISTANCES, _SIDES):
        yield axes.annotate(
            "\n".join(lines),
            (x, y),
            (_AWAY[side] * distance, _AWAY[edge] * distance),
            textcoords="offset points",
            ha=side,
            va=edge,
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": "0.5", "linewidth": 0.6},
        )


def _extent(text: Annotation) -> Bbox:
    """Of the text, without its line."""
    text.get_window_extent()  # puts it in its place
    return Text.get_window_extent(text)


def _is_inside(box: Bbox, frame: BboxBase) -> bool:
    return bool(frame.contains(*box.min) and frame.contains(*box.max))

"""The picture of a timetable: what every wire of a streaming network saw, and how late it is."""

from __future__ import annotations

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from rnnx.picture_file import save
from rnnx_exporters.timetable import Row

_ROW_INCHES, _MOST_ROWS = 0.32, 80
_SEEN, _AHEAD, _BEFORE = "tab:blue", "tab:orange", "tab:green"
_LEGEND = (("all before", _BEFORE), ("before", _SEEN), ("ahead", _AHEAD))


def draw(path: str | os.PathLike[str], rows: Sequence[Row]) -> None:
    """Draw each wire on which something happens to time as a bar over the input frames it saw.

    Args:
        path: the file to write; its ending tells the format (.png, .svg, .pdf).
        rows: the timetable.

    Raises:
        InputError: the file has another ending.
    """
    shown = _telling(rows)[:_MOST_ROWS]
    figure = Figure(figsize=(9, 1.6 + _ROW_INCHES * len(shown)), dpi=120, layout="constrained")
    axes = figure.subplots()
    left = min([row.first for row in shown if row.first is not None], default=0.0)
    right = max(row.last for row in shown)
    margin = max(1.0, 0.08 * (right - left))
    for place, row in enumerate(shown):
        _draw_row(axes, place, row, left - margin)
    axes.set_yticks(range(len(shown)), [_label(row) for row in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(left - margin, right + margin + 1)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_xlabel("input frames, counted from the one that stands at the frame's own place")
    axes.set_title("What a frame of each wire saw, and (right) how it comes")
    axes.legend(handles=[Patch(color=c, label=name) for name, c in _LEGEND], loc="best", fontsize=8)
    save(figure, path)


def _telling(rows: Sequence[Row]) -> list[Row]:
    """The first and the last wire, and those whose clock is not that of the wire before."""
    clocks = [(row.stride, row.delay, row.first, row.last) for row in rows]
    changed = [row for row, a, b in zip(rows[1:], clocks, clocks[1:], strict=False) if a != b]
    return list(dict.fromkeys([*rows[:1], *changed, *rows[-1:]]))


def _draw_row(axes: Axes, place: int, row: Row, left: float) -> None:
    first = left if row.first is None else row.first
    before = min(0.0, row.last + 1) - first
    axes.barh(place, before, left=first, color=_BEFORE if row.first is None else _SEEN, height=0.55)
    axes.barh(place, 1, left=0, color=_SEEN, height=0.55)
    if row.last > 0:
        axes.barh(place, row.last, left=1, color=_AHEAD, height=0.55)
    rate = "every frame" if row.stride == "1" else f"every {row.stride} frames"
    late = f", {row.delay:g} late" if row.delay else ""
    axes.annotate(
        f"{rate}{late}",
        (1.01, place),
        xycoords=("axes fraction", "data"),
        fontsize=8,
        va="center",
    )


def _label(row: Row) -> str:
    return f"{row.module or row.wire} ({row.operator})"

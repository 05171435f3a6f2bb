"""The pictures of a report as SVG: error over time, against magnitude, and where it breaks."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from rnnx.parity.evidence import Evidence

Floats = npt.NDArray[np.float64]

_ERROR, _NOISE, _ALLOWED = "tab:red", "0.55", "tab:blue"
_MOST_EDGES, _MOST_DOTS = 40, 200
_DOT = 3.0
_MOST_DECADES = 12  # under the largest value of a picture; what lies lower stands at its edge
# So that equal reports are equal files, and their text stays text.
_SETTINGS: Any = {"svg.hashsalt": "rnnx", "svg.fonttype": "none", "font.size": 9}


def draw(evidence: Evidence) -> str:
    """The panels of one comparison beside each other, as an `<svg>` element."""
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(13, 3.6), layout="constrained")
        axes = figure.subplots(1, 3 if evidence.has_time else 2)
        _draw_course(axes[0], evidence)
        _draw_magnitude(axes[1], evidence)
        if evidence.has_time:
            _draw_map(figure, axes[2], evidence)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", dpi=150, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _draw_course(axes: Axes, evidence: Evidence) -> None:
    """The element of each frame that is nearest to its limit, or farthest over it."""
    error, allowed = evidence.error, evidence.allowed
    excess = np.where(np.isfinite(error), error - allowed, np.inf)
    along = 1 if evidence.has_time else 0
    places = np.expand_dims(excess.argmax(along), along)
    x = evidence.steps if evidence.has_time else evidence.values
    noise = evidence.noise.max(along)
    series = [
        (np.take_along_axis(allowed, places, along).ravel(), _ALLOWED, "allowed"),
        (noise, _NOISE, "torch's float32"),
        (np.take_along_axis(error, places, along).ravel(), _ERROR, "artifact"),
    ]
    lowest = _lowest(*(values for values, _, _ in series))
    style = "." if not evidence.has_time else ".-" if len(x) <= _MOST_DOTS else "-"
    for values, colour, label in series:
        if not values.any():  # nothing is known of it, or nothing is off
            continue
        points = _drawable(values, lowest)
        axes.plot(x, points, style, color=colour, label=label, markersize=4, linewidth=1)
    if evidence.has_time:
        _draw_edges(axes, evidence)
    axes.set_yscale("log")
    axes.set_xlabel("time step" if evidence.has_time else "value")
    axes.set_title("Distance from the reference")


def _draw_edges(axes: Axes, evidence: Evidence) -> None:
    """Lines where one chunk ends and the next begins."""
    chunk = evidence.finding.run.get("chunk")
    if chunk is None or chunk == 1 or evidence.size[0] > _MOST_EDGES * chunk:
        return
    for edge in range(chunk, evidence.size[0], chunk):
        axes.axvline(edge - 0.5, color="0.85", linewidth=0.8, zorder=0)


def _draw_magnitude(axes: Axes, evidence: Evidence) -> None:
    magnitude = np.abs(evidence.exact).ravel()
    order = np.argsort(magnitude)
    series = [(evidence.noise, _NOISE), (evidence.error, _ERROR)]
    lowest = _lowest(evidence.error, evidence.noise, evidence.allowed)
    x = _drawable(magnitude, _lowest(magnitude))
    for values, colour in series:
        points = _drawable(values.ravel(), lowest)
        axes.plot(x, points, ".", color=colour, markersize=_DOT, rasterized=True)
    limits = _drawable(evidence.allowed.ravel(), lowest)
    axes.plot(x[order], limits[order], color=_ALLOWED, linewidth=1, rasterized=True)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*_whole_decades(x))
    axes.xaxis.set_minor_formatter(NullFormatter())  # labels between decades run into each other
    axes.set_xlabel("|reference|")
    axes.set_title("Distance against magnitude")


def _draw_map(figure: Figure, axes: Axes, evidence: Evidence) -> None:
    """How many times its limit each element is off: red is over it, white at it, blue under it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.log10(evidence.error / evidence.allowed)
    decades = np.nan_to_num(decades, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    colours = axes.imshow(
        np.clip(decades.T, -3, 3),
        aspect="auto",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-3,
        vmax=3,
    )
    _label(axes, evidence)
    bar = figure.colorbar(colours, ax=axes, ticks=[-3, 0, 3])
    bar.ax.set_yticklabels(["1/1000", "limit", "x 1000"])
    axes.set_title("Where it breaks")


def _label(axes: Axes, evidence: Evidence) -> None:
    """The axes count what was kept; their ticks tell which it was."""
    axes.set_xlabel("time step")
    axes.set_ylabel("value")
    for places, set_ticks in (
        (evidence.steps, axes.set_xticks),
        (evidence.values, axes.set_yticks),
    ):
        ticks = np.unique(np.linspace(0, len(places) - 1, 6).round().astype(int))
        set_ticks(ticks, [str(place) for place in places[ticks]])


def _lowest(*arrays: Floats) -> float:
    """Where a logarithmic axis ends: below it stands what is zero."""
    values = np.concatenate([array.ravel() for array in arrays])
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 1e-12
    return float(max(values.min(), values.max() / 10**_MOST_DECADES)) / 2


def _whole_decades(values: Floats) -> tuple[float, float]:
    """The limits of a logarithmic axis with a label at each end."""
    powers = np.log10(values[np.isfinite(values)])
    if not powers.size:
        return 0.1, 1.0
    return 10.0 ** np.floor(powers.min()), 10.0 ** (np.floor(powers.max()) + 1)


def _drawable(values: Floats, lowest: float) -> Floats:
    """Zeros at the lower edge; NaN and infinity are left out."""
    return np.where(np.isfinite(values), np.maximum(values, lowest), np.nan)

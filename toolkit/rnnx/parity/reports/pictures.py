"""The pictures of a report as SVG: error over time, against magnitude, and where it breaks."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from rnnx.parity.evidence import Evidence

Floats = npt.NDArray[np.float64]

_ERROR, _NOISE, _ALLOWED = "artifact", "torch's float32", "allowed"
_COLOURS = {_ERROR: "tab:red", _NOISE: "0.55", _ALLOWED: "tab:blue"}
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
    x = evidence.steps if evidence.has_time else evidence.values
    style = "." if not evidence.has_time else ".-" if len(x) <= _MOST_DOTS else "-"
    curves = _curves(evidence)
    lowest = _lowest(*curves.values())
    points = {label: _drawable(values, lowest) for label, values in curves.items()}
    for label, values in points.items():
        axes.plot(x, values, style, color=_COLOURS[label], label=label, markersize=4, linewidth=1)
    if evidence.has_time:
        _draw_edges(axes, evidence)
    _scale_error(axes, *points.values())
    axes.set_xlabel("time step" if evidence.has_time else "value")
    axes.set_title("Distance from the reference")


def _curves(evidence: Evidence) -> dict[str, Floats]:
    """Error and limit of the element of each frame that is nearest to its limit, and the noise."""
    error, allowed = evidence.error, evidence.allowed
    excess = np.where(np.isfinite(error), error - allowed, np.inf)
    along = 1 if evidence.has_time else 0
    places = np.expand_dims(excess.argmax(along), along)
    curves = {
        _ALLOWED: np.take_along_axis(allowed, places, along).ravel(),
        _NOISE: evidence.noise.max(along),
        _ERROR: np.take_along_axis(error, places, along).ravel(),
    }
    # Against another artifact no noise is known; where nothing is off, nothing is drawn.
    return {label: values for label, values in curves.items() if values.any()}


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
    arrays = (evidence.noise, evidence.error, evidence.allowed)
    lowest = _lowest(*arrays)
    noise, error, allowed = (_drawable(array.ravel(), lowest) for array in arrays)
    x = _drawable(magnitude, _lowest(magnitude))
    axes.plot(x, noise, ".", color=_COLOURS[_NOISE], markersize=_DOT, rasterized=True)
    axes.plot(x, error, ".", color=_COLOURS[_ERROR], markersize=_DOT, rasterized=True)
    axes.plot(x[order], allowed[order], color=_COLOURS[_ALLOWED], linewidth=1, rasterized=True)
    _scale_error(axes, noise, error, allowed)
    axes.set_xscale("log")
    axes.set_xlim(*_whole_decades(x))
    _label_decades(axes.xaxis)
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


def _scale_error(axes: Axes, *errors: Floats) -> None:
    axes.set_yscale("log")
    axes.set_ylim(*_whole_decades(*errors))
    _label_decades(axes.yaxis)


def _label_decades(axis: Axis) -> None:
    """Ticks at decades only, as plain text: more of them, or powers, take long to draw."""
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def _lowest(*arrays: Floats) -> float:
    """Where a logarithmic axis ends: below it stands what is zero."""
    values = np.concatenate([array.ravel() for array in arrays])
    values = values[np.isfinite(values) & (values > 0)]
    if not values.size:
        return 1e-12
    return float(max(values.min(), values.max() / 10**_MOST_DECADES)) / 2


def _whole_decades(*arrays: Floats) -> tuple[float, float]:
    """The limits of a logarithmic axis with a label at each end."""
    values = np.concatenate(arrays)
    powers = np.log10(values[np.isfinite(values)])
    if not powers.size:
        return 0.1, 1.0
    return 10.0 ** np.floor(powers.min()), 10.0 ** (np.floor(powers.max()) + 1)


def _drawable(values: Floats, lowest: float) -> Floats:
    """Zeros at the lower edge; NaN and infinity are left out."""
    return np.where(np.isfinite(values), np.maximum(values, lowest), np.nan)

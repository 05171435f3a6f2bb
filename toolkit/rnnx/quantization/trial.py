"""Makes mixtures and levels of an artifact, and measures each once."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rnnx.quantization.journal import Journal, Key
from rnnx.quantization.levels import LEVELS
from rnnx.quantization.making import Apply, make, record_of
from rnnx.quantization.mixture import Mixture, Part
from rnnx.quantization.original import Original
from rnnx.quantization.report import Point
from rnnx_exporters.artifact import load_graph
from rnnx_runtime.errors import QuantizationError

AUTO, MIXTURE = "auto", "mixture"
Bits = dict[Part, int]

# What is not known yet is written as long as it can be, so that the result is no larger than this.
_LONGEST = {"budget": " " * 24, "invariance": "chunks"}


class Trial:
    """Makes mixtures and levels of an artifact, and measures each once.

    Args:
        original: the artifact.
        journal: what was measured before, and where to keep what is.

    Attributes:
        mixture: what mixtures are made of.
        points: what was asked for, each once.
    """

    def __init__(self, original: Original, journal: Journal) -> None:
        self._original, self._journal = original, journal
        self.mixture = Mixture(load_graph(original.path), original.given.observed())
        self.points: dict[Key, Point] = {}
        self._timed: dict[Key, Point] = {}

    def mixed(self, bits: Bits) -> Point:
        """A mixture, measured."""
        named = {str(part): count for part, count in sorted(bits.items())}
        point = self._once(MIXTURE, named)
        assert point is not None  # each part becomes smaller by any of its bits
        return point

    def level(self, name: str) -> Point | None:
        """A level, measured; None where it cannot be made."""
        return self._once(name, {})

    def apply_of(self, point: Point) -> Apply:
        """What makes a graph as it was measured."""
        if point.name != MIXTURE:
            return lambda model: LEVELS[point.name](model, self._original.given)
        named = {str(part): part for part in self.mixture.parts}
        bits = {named[name]: count for name, count in point.bits.items()}
        return partial(self.mixture.apply, bits=bits)

    def timed(self, point: Point) -> Point:
        """The same with the time of its step, timed once."""
        key = _key(point.name, point.bits)
        if key not in self._timed:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "timed.onnx")
                made = make(self._original, point.name, self.apply_of(point), path)
                ratio = self._original.step_time(made.runner)
            self._timed[key] = dataclasses.replace(point, step_time_ratio=ratio)
        return self._timed[key]

    def _once(self, name: str, bits: dict[str, int]) -> Point | None:
        key = _key(name, bits)
        if key not in self._journal.points:
            self._journal.add(key, self._measured(name, bits))
        point = self._journal.points[key]
        if point is not None:
            self.points[key] = point
        return point

    def _measured(self, name: str, bits: dict[str, int]) -> Point | None:
        apply = self.apply_of(Point(name, 0, None, bits))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tried.onnx")
            try:
                made = make(self._original, name, apply, path)
                quality = self._original.quality(made.runner)
            except QuantizationError:
                if name == MIXTURE:
                    raise
                return None
            figure = self._original.figure(made.runner)
            record = record_of(self._original, made, AUTO, quality, figure)
            size = made.write(record | {"bits": bits} | _LONGEST, path)
        return Point(name, size, min(quality.snr_db.values(), default=None), bits, figure)


def _key(name: str, bits: Mapping[str, int]) -> Key:
    return name, frozenset(bits.items())

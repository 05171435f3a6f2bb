"""QuantizationReport: what a quantization changed, and what it measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

INVARIANCE = {
    "all": "neither chunks nor other sequences of a batch change a bit",
    "chunks": "chunks change no bit of one sequence; other sequences of a batch may",
    "none": "results depend a little on chunks and on other sequences of a batch",
}


@dataclass(frozen=True, slots=True)
class Point:
    """A way to make an artifact smaller, measured.

    Attributes:
        name: the level, or `"mixture"`.
        bytes: of the file.
        snr_db: of the worst output or state; None where none could be measured so.
        bits: of each part, by its name; empty for a level.
        figure: what the metric gives; None without one.
        step_time_ratio: the time of a step over the original's; None where it was not timed.
    """

    name: str
    bytes: int
    snr_db: float | None
    bits: Mapping[str, int] = field(default_factory=dict)
    figure: float | None = None
    step_time_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """What a quantization changed, and what it measured.

    Attributes:
        level: the level, as in `int8`.
        source_bytes, output_bytes: sizes of the two files.
        changed: nodes whose weights became smaller, by the operator they had.
        snr_db: for each float output and state, the power of the original's values over the power
            of the error, in decibels; 138.5 dB is float32's own resolution, the most shown.
        step_time_ratio: the time of a step (one frame of a streaming artifact, else one whole run)
            over the original's, both measured here in turn; less than 1 is faster.
        invariance: what changes no bit of the outputs and states: `"all"` (neither how a stream is
            cut into chunks nor what other sequences a batch holds), `"chunks"` (for one sequence,
            how it is cut) or `"none"`; checked where the artifact streams or has a free batch.
        chunk: frames fed at a time in all measurements; None where it takes whole sequences.
        batch: sequences that advance together in them; where runs differ, of the first.
        agreement: how often the largest value along the last axis is the same one, over all outputs
            in which there is something to choose from; None where there is none.
        measured_on: `"calibration data"` or `"random inputs"`.
        metric: the name of the user's own, where there is one.
        figure, source_figure: what it gives for the two files.
        budget: what level auto was to keep.
        bits: of each part of the weights, where level auto found a mixture.
        chosen: what level auto took.
        front: what level auto measured and nothing else beats in both bytes and SNR, or, where the
            budget is one of the metric, in bytes and that; smallest first.
        levels: what level auto measured of the other levels.
        reasons: for each part, what level auto measured of it alone.
        notes: what was left as it was and why, and what to know, in sentences.
    """

    level: str
    source_bytes: int
    output_bytes: int
    changed: Mapping[str, int]
    snr_db: Mapping[str, float]
    invariance: str
    chunk: int | None
    batch: int
    agreement: float | None
    step_time_ratio: float
    measured_on: str
    notes: tuple[str, ...]
    metric: str | None = None
    figure: float | None = None
    source_figure: float | None = None
    budget: str | None = None
    bits: Mapping[str, int] = field(default_factory=dict)
    chosen: Point | None = None
    front: tuple[Point, ...] = ()
    levels: tuple[Point, ...] = ()
    reasons: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """How many times smaller the file became."""
        return self.source_bytes / self.output_bytes

    @property
    def worst_snr_db(self) -> float | None:
        """The lowest of `snr_db`; None where no output could be measured so."""
        return min(self.snr_db.values(), default=None)

    def to_json(self) -> str:
        """This report as JSON."""
        record = dataclasses.asdict(self)
        record |= {"ratio": self.ratio, "worst_snr_db": self.worst_snr_db}
        return json.dumps(record, indent=2)

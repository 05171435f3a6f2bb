"""QuantizationReport: what a quantization changed, and what it measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """What a quantization changed, and what it measured.

    Attributes:
        level: the level, as in `int8`.
        source_bytes, output_bytes: sizes of the two files.
        changed: nodes whose weights became smaller, by the operator they had.
        reduced_range: for LSTM computed in int8, whether its weights use [-64, 64] only, which x86
            CPUs without VNNI need; None where nothing computes in int8.
        snr_db: for each float output and state, the power of the original's values over the power
            of the error, in decibels; 138.5 dB is float32's own resolution, the most shown.
        step_time_ratio: the time of a step (one frame of a streaming artifact, else one whole run)
            over the original's, both measured here in turn; less than 1 is faster.
        measured_on: `"calibration data"` or `"random inputs"`.
        notes: what was left as it was and why, and what to know, in sentences.
    """

    level: str
    source_bytes: int
    output_bytes: int
    changed: Mapping[str, int]
    reduced_range: bool | None
    snr_db: Mapping[str, float]
    step_time_ratio: float
    measured_on: str
    notes: tuple[str, ...]

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

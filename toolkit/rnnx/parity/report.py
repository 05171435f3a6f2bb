"""What a check found, as data, JSON and text."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rnnx.parity.location import Location
from rnnx.table import render

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One output or state in one probe's run, held against the reference.

    Attributes:
        probe: the probe's name.
        output: the output's or state's name.
        run: the run: its batch, its frames, and for the chunked probe its chunk length.
        passed: whether it was within tolerance.
        max_abs: the largest |artifact - reference|; infinite where they are not comparable.
        required_atol: the smallest atol that would have passed, with this rtol.
        rtol, atol: the tolerance it was held to.
        index: of the element that needs the largest atol.
        time_step: its frame, where the output has a time axis.
        reason: why the two are not comparable, or which property does not hold; or None.
        noise_floor: the largest |float32 - float64| of the reference itself, where it is known.
        floor_ratio: how many times as far from float64 the artifact is.
        snr_db: the ratio of the reference to the difference, in dB.
        agreement: how often the largest value along the last axis is the same one.
    """

    probe: str
    output: str
    run: dict[str, int]
    passed: bool
    max_abs: float
    required_atol: float
    rtol: float
    atol: float
    index: tuple[int, ...] | None = None
    time_step: int | None = None
    reason: str | None = None
    noise_floor: float | None = None
    floor_ratio: float | None = None
    snr_db: float | None = None
    agreement: float | None = None

    @property
    def where(self) -> str:
        """The place of the worst element, for a person."""
        if self.reason:
            return self.reason
        if self.index is None:
            return "equal"
        step = "" if self.time_step is None else f"time step {self.time_step}, "
        return f"{step}index {list(self.index)}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        artifact: the file that was checked.
        findings: every comparison made.
        seed: of the random inputs.
        versions: of what ran.
        notes: what a reader should know besides.
        skipped: the probes that did not fit, and why.
        location: which block of the artifact's graph leaves the torch model, where that was asked.
    """

    artifact: str
    findings: tuple[Finding, ...]
    seed: int
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    location: Location | None = None

    @property
    def passed(self) -> bool:
        """Whether every comparison was within tolerance. A report of no comparison fails."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    @property
    def worst(self) -> Finding:
        """The finding that needs the largest tolerance."""
        return max(self.findings, key=lambda found: (found.required_atol, found.max_abs))

    def to_json(self) -> str:
        """The report as JSON; infinite figures as null."""
        record: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "artifact": self.artifact,
            "passed": self.passed,
            "worst": _record(self.worst),
            "findings": [_record(finding) for finding in self.findings],
            "seed": self.seed,
            "versions": self.versions,
            "notes": list(self.notes),
            "skipped": dict(self.skipped),
        }
        if self.location is not None:
            record["location"] = self.location.to_record()
        return json.dumps(record, indent=2)

    def to_text(self) -> str:
        """A table with the worst run of each probe and output, and the verdict."""
        header = ("output", "probe", "runs", "max |d|", "required atol", "verdict", "worst at")
        worst = self.worst
        lines = [render(header, [_row(group) for group in self._groups()]), ""]
        lines += [] if self.location is None else [self.location.to_text(), ""]
        lines += [f"note: {note}" for note in self.notes]
        verdict = "equal" if self.passed else "NOT EQUAL"
        lines.append(
            f"{verdict}: {len(self.findings)} comparisons at rtol {worst.rtol:g},"
            f" atol {worst.atol:g}; required atol {worst.required_atol:.1e}"
            f" ({worst.output}, {worst.where})"
        )
        return "\n".join(lines)

    def _groups(self) -> list[list[Finding]]:
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.output, finding.probe), []).append(finding)
        return list(groups.values())


def _record(finding: Finding) -> dict[str, Any]:
    record = dataclasses.asdict(finding)
    # JSON has no infinity.
    infinite = {name for name, value in record.items() if value in (math.inf, -math.inf)}
    return record | dict.fromkeys(infinite)


def _row(group: Sequence[Finding]) -> tuple[str, ...]:
    worst = max(group, key=lambda found: (found.required_atol, found.max_abs))
    run = ", ".join(f"{name} {size}" for name, size in worst.run.items())
    return (
        worst.output,
        worst.probe,
        str(len(group)),
        f"{worst.max_abs:.1e}",
        f"{worst.required_atol:.1e}",
        "ok" if all(found.passed for found in group) else "FAILED",
        f"{worst.where} ({run})",
    )

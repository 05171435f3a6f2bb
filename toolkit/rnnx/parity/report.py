"""What a check found: the one model from which every format of a report is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rnnx.parity import reports

if TYPE_CHECKING:
    from rnnx.parity.evidence import Evidence
    from rnnx.parity.location import Location

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
        min_snr_db, min_agreement: what it was held to instead of the tolerance, where that is so.
        inputs_sha256: of the run's inputs and first states, where it is known.
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
    min_snr_db: float | None = None
    min_agreement: float | None = None
    inputs_sha256: str | None = None

    @property
    def where(self) -> str:
        """The place of the worst element, for a person."""
        step = "" if self.time_step is None else f"time step {self.time_step}, "
        place = "" if self.index is None else f"{step}index {list(self.index)}"
        return ": ".join(part for part in (place, self.reason) if part) or "equal"

    @property
    def run_text(self) -> str:
        """The run, for a person: `batch 2, frames 31, chunk 7`."""
        return ", ".join(f"{name} {size}" for name, size in self.run.items())

    @property
    def severity(self) -> tuple[bool, float, float]:
        """How bad it is, to sort by: a failure first, then what is farthest off."""
        far = self.required_atol
        if self.min_snr_db is not None and self.snr_db is not None:
            far = 10 ** (-self.snr_db / 20)
        return not self.passed, far, self.max_abs


@dataclass(frozen=True, slots=True)
class Group:
    """What one probe found of one output, in all its runs."""

    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Finding:
        """The finding that is farthest off."""
        return max(self.findings, key=lambda finding: finding.severity)

    @property
    def passed(self) -> bool:
        """Whether all passed."""
        return all(finding.passed for finding in self.findings)


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
        artifact_sha256: of the file; of a folder those of both its files, the encoder's first.
        machine: what it ran on: the CPU, and with how many threads.
        evidence: the worst comparison of each output, to be drawn; not in the JSON.
        location: which block of the artifact's graph leaves the torch model, where that was asked.
    """

    artifact: str
    findings: tuple[Finding, ...]
    seed: int
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    artifact_sha256: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = field(default=(), compare=False, repr=False)
    location: Location | None = None

    @property
    def passed(self) -> bool:
        """Whether every comparison was within tolerance. A report of no comparison fails."""
        return bool(self.findings) and all(finding.passed for finding in self.findings)

    @property
    def worst(self) -> Finding | None:
        """The finding that is farthest off, a failure first; None where nothing was compared."""
        return max(self.findings, key=lambda finding: finding.severity, default=None)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The findings of each probe and output, in the order in which they were made."""
        groups: dict[tuple[str, str], list[Finding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.probe, finding.output), []).append(finding)
        return tuple(Group(tuple(findings)) for findings in groups.values())

    @property
    def verdict(self) -> str:
        """The verdict in a sentence."""
        worst = self.worst
        if worst is None:
            return "NOT EQUAL: nothing was compared"
        held_to = f"rtol {worst.rtol:g}, atol {worst.atol:g}"
        needed = f"required atol {worst.required_atol:.1e}"
        if worst.min_snr_db is not None:
            held_to = f"{worst.min_snr_db:g} dB"
            needed = "SNR unknown" if worst.snr_db is None else f"SNR {worst.snr_db:.1f} dB"
        return (
            f"{'equal' if self.passed else 'NOT EQUAL'}: {len(self.findings)} comparisons"
            f" at {held_to}; {needed} ({worst.output}, {worst.where})"
        )

    def render(self, kind: str) -> str:
        """The report as `text`, `json`, `junit`, `markdown`, `github` or `html`.

        Raises:
            InputError: there is no such kind.
            MissingExtraError: HTML is asked for, and matplotlib is not installed.
        """
        return reports.render(self, kind)

    def to_json(self) -> str:
        """The report as JSON; infinite figures as null."""
        return self.render("json")

    def to_text(self) -> str:
        """A table with the worst run of each probe and output, and the verdict."""
        return self.render("text")

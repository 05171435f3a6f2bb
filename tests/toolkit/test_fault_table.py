"""Every planted fault is killed, by the probes that the page names; the artifact without it passes.

Those that take long run with `full`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import fault_table
import rnnx
from fault_table import FAULTS, Planted, check, killers, line, page_lines
from rnnx.parity.probes import PROBES

PAGE = Path(__file__).parents[2] / "docs" / "parity.md"
# The faults of one artifact in one test: it is exported once, and torch runs once for all.
GROUPS: dict[tuple[str, bool, str | None], list[str]] = {}
for _name, _planted in FAULTS.items():
    GROUPS.setdefault((*_planted[:2], _planted.level), []).append(_name)


@pytest.fixture(scope="module", autouse=True)
def no_file_stays() -> Iterator[None]:
    yield
    fault_table.folder().cleanup()
    fault_table.Remembering.results.clear()
    for made in (fault_table.folder, fault_table.artifact):
        made.cache_clear()


def hold(name: str) -> None:
    planted = FAULTS[name]
    report = check(planted)
    failing = [finding for finding in report.findings if not finding.passed]
    assert failing, f"{name} lives"
    assert report.worst in failing
    if report.worst.min_snr_db is None:  # by quality, the worst is that of the least SNR
        assert report.worst.required_atol == max(finding.required_atol for finding in failing)
    assert "NOT EQUAL" in report.to_text()
    assert line(name, killers(report)) in page_lines(PAGE)
    if planted.fails:
        whole = {finding.output for finding in failing if finding.probe == "sequence"}
        assert whole == set(planted.fails.split())


@pytest.mark.parametrize("names", GROUPS.values(), ids=map(str, GROUPS))
def test_the_faults_of_an_artifact_are_killed(names: list[str]) -> None:
    sound = check(FAULTS[names[0]], faulty=False)
    assert sound.passed, sound.to_text()
    for name in names:
        if FAULTS[name].quick:
            hold(name)


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name, planted in FAULTS.items() if not planted.quick])
def test_a_fault_that_takes_long_is_killed(name: str) -> None:
    hold(name)


def test_the_page_holds_every_fault_and_no_other() -> None:
    assert [row.split(" | ")[0].removeprefix("| ") for row in page_lines(PAGE)] == list(FAULTS)


def test_every_probe_kills_some_fault() -> None:
    """`determinism` and `delay` alone kill what nothing else sees; no probe is for show."""
    named = {
        probe for row in page_lines(PAGE) for probe in row.split(" | ")[3].strip(" |").split(", ")
    }
    own = {"recorded", "metric"}  # of the user's own data: their faults are in test_check_own
    assert named == set(PROBES) - own


def test_a_fault_that_changes_nothing_lives() -> None:
    """The table can tell a fault that lives: this one is the artifact itself."""
    sound = Planted("gru", True, ("reset", rnnx.Stream.reset))
    assert killers(check(sound)) == ""

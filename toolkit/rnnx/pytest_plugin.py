"""The pytest plugin: the fixture `parity`, and `--rnnx-update` for golden files.

pytest loads it in every run of an environment that has rnnx, so it loads nothing heavy until a
test asks for the fixture.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rnnx import testing

if TYPE_CHECKING:
    from rnnx.parity import Finding, Report

_METRICS = ("max_abs", "required_atol", "floor_ratio", "snr_db", "agreement")


class Parity:
    """Holds artifacts against models and golden files, for one test.

    Args:
        properties: of the test, names and values, which go into the JUnit report.
        folder: of the test's file, in which golden files are found.
        update: whether golden files are written anew.
    """

    def __init__(self, properties: list[tuple[str, object]], folder: Path, update: bool) -> None:
        self._properties, self._folder, self._update = properties, folder, update

    def __call__(
        self, path: str | os.PathLike[str], model: Any, args: Any = None, **options: Any
    ) -> Report:
        """Hold an artifact against its torch model; see `rnnx.testing.assert_parity`.

        The metrics become properties of the test in the JUnit report, whether it passes or not.
        """
        __tracebackhide__ = True
        from rnnx.parity import check

        report = check(path, model, args, **options)
        for group in report.groups:
            self._record_metrics(f"{Path(path).stem}.{group.worst.probe}", group.worst)
        testing.assert_passed(report)
        return report

    def golden(self, artifact: Any, inputs: Any, golden: str, **tolerances: float) -> None:
        """Hold outputs against a file beside the test; see `rnnx.testing.assert_golden`."""
        __tracebackhide__ = True
        file = self._folder / golden
        testing.assert_golden(artifact, inputs, file, update=self._update, **tolerances)

    def _record_metrics(self, prefix: str, finding: Finding) -> None:
        for metric in _METRICS:
            value = getattr(finding, metric)
            if value is not None:
                self._properties.append((f"{prefix}.{finding.output}.{metric}", value))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--rnnx-update`."""
    group = parser.getgroup("rnnx", "recurrent networks")
    group.addoption(
        "--rnnx-update",
        action="store_true",
        help="write golden files of rnnx anew instead of comparing with them",
    )


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Parity:
    """`parity(path, model)` and `parity.golden(path, inputs, "x.npz")`: see `rnnx.testing`."""
    update = bool(request.config.getoption("--rnnx-update"))
    # The fixture record_property is the same list, with a warning at pytest's own default format.
    return Parity(request.node.user_properties, request.path.parent, update)

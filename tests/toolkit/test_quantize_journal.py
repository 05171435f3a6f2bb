"""A search that was ended goes on: nothing is measured twice, and the result is the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rnnx
from quantizable import streaming_lstm
from rnnx.quantization.journal import Journal
from rnnx.quantization.original import Original, open_original
from rnnx.quantization.report import QuantizationReport

pytestmark = pytest.mark.usefixtures("short_timing")

Array = npt.NDArray[Any]
X = np.random.default_rng(0).normal(size=(1, 80, 16)).astype(np.float32)
HOSTILE = [
    b"[]",
    b"7",
    b"{}",
    b'{"name": "int8"}',
    b'{"name": "int8", "bits": 4, "bytes": 100, "snr_db": 30.0, "figure": null}',
    b'{"name": "int8", "bits": {}, "bytes": -5, "snr_db": 30.0, "figure": null}',
    b'{"name": "mixture", "bits": {"W, gates": 4}, "bytes": null}',
    b'{"name": "int8", "bits": {}, "bytes": 1' + b"0" * 400 + b', "snr_db": 3.0, "figure": null}',
    b'{"name": "int8", "bits": {}, "bytes": true, "snr_db": 30.0, "figure": null}',
    b'{"name": "int8", "bits": {}, "bytes": 100, "snr_db": NaN, "figure": null}',
    b'{"name": "int8", "bits": {}, "bytes": 100, "snr_db": "30", "figure": null}',
    b'{"name": "int8", "bits": {"W": 4.5}, "bytes": 100, "snr_db": 30.0, "figure": null}',
    b'{"name": "int8", "bits": {}, "bytes": 100, "snr_db": 1e999, "figure": null}',
    b'{"name": "int8", "bits": {}, "bytes": 100, "snr_db": 1' + b"0" * 400 + b', "figure": null}',
]


class EndedError(Exception):
    """What ends a search from outside."""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    streaming_lstm(tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows by one with every file that is measured."""
    found: list[object] = []
    measure = Original.quality
    monkeypatch.setattr(
        Original, "quality", lambda self, runner: found.append(runner) or measure(self, runner)
    )
    return found


def searched(model: Path, name: str = "small.onnx", **options: Any) -> QuantizationReport:
    given: dict[str, Any] = {"budget": "snr=34", "calibration": X} | options
    return rnnx.quantize(model, model.with_name(name), level="auto", **given)


@cache
def opened(model: Path) -> Original:
    return open_original(model, calibration=X)


def ending(after: int) -> Callable[[str], None]:
    """Ends the search when it is told so many things."""
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) > after:
            raise EndedError

    return tell


def interrupted(model: Path, after: int = 5, **options: Any) -> Path:
    """The journal of a search that was ended."""
    with pytest.raises(EndedError):
        searched(model, tell=ending(after), **options)
    return model.with_name("small.onnx.journal.jsonl")


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of a search that was ended: of this model, whatever its folder."""
    path = tmp_path_factory.mktemp("ended") / "model.onnx"
    streaming_lstm(path)
    return interrupted(path).read_bytes()


@pytest.fixture
def journal(model: Path, ended: bytes) -> Path:
    """Such a journal beside the model."""
    path = model.with_name("small.onnx.journal.jsonl")
    path.write_bytes(ended)
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a search that was not ended writes."""
    path = tmp_path_factory.mktemp("whole") / "model.onnx"
    streaming_lstm(path)
    searched(path)
    return path.with_name("small.onnx").read_bytes()


@pytest.mark.parametrize("after", [1, 4, pytest.param(5, marks=pytest.mark.full)])
def test_a_search_goes_on_where_it_was_ended(
    model: Path, measured: list[object], after: int
) -> None:
    whole = searched(model, "whole.onnx")
    in_all = len(measured)
    measured.clear()
    journal = interrupted(model, after)
    before = len(measured)
    assert 0 < before < in_all
    assert len(journal.read_bytes().splitlines()) == 1 + before
    told: list[str] = []
    report = searched(model, tell=told.append)
    assert len(measured) == in_all
    assert told[0].startswith(f"going on: {before} files were measured before")
    small = model.with_name("small.onnx").read_bytes()
    assert small == model.with_name("whole.onnx").read_bytes()
    assert (report.bits, report.reasons) == (whole.bits, whole.reasons)
    assert [(p.name, p.bytes, p.snr_db) for p in report.front] == [
        (p.name, p.bytes, p.snr_db) for p in whole.front
    ]
    assert sorted(path.name for path in model.parent.iterdir()) == [
        "model.onnx",
        "small.onnx",
        "whole.onnx",
    ]


def test_a_search_killed_while_it_measures_goes_on(
    model: Path, measured: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(model, "whole.onnx")
    in_all = len(measured)
    measured.clear()
    counting = Original.quality

    def killed(self: Original, runner: Any) -> Any:
        if len(measured) == 7:
            raise KeyboardInterrupt
        return counting(self, runner)

    monkeypatch.setattr(Original, "quality", killed)
    with pytest.raises(KeyboardInterrupt):
        searched(model)
    monkeypatch.setattr(Original, "quality", counting)
    searched(model)
    assert len(measured) == in_all
    whole, small = (model.with_name(f"{name}.onnx").read_bytes() for name in ("whole", "small"))
    assert whole == small


def test_another_budget_is_found_by_what_was_measured(model: Path, measured: list[object]) -> None:
    with pytest.raises(rnnx.QuantizationError, match="nothing keeps the budget snr=200"):
        searched(model, budget="snr=200")
    measured.clear()
    searched(model, budget="snr=60")
    again = len(measured)
    measured.clear()
    searched(model, "other.onnx", budget="snr=60")
    assert again < len(measured) / 2


@pytest.mark.parametrize("cut", [1, 60])
def test_a_last_line_that_was_cut_off_is_measured_again(
    model: Path, journal: Path, measured: list[object], whole: bytes, cut: int
) -> None:
    journal.write_bytes(journal.read_bytes()[:-cut])
    searched(model)
    assert len(measured) == 2  # that of the line, and the result
    assert model.with_name("small.onnx").read_bytes() == whole


@pytest.mark.parametrize(
    "junk", [b"\x00\x00\x00\n", b'{"name": "int8", "by\n', b"\xff\n", b"[" * 99_999 + b"\n"]
)
def test_a_last_line_that_is_damaged_is_measured_again(
    model: Path, journal: Path, junk: bytes
) -> None:
    kept = journal.read_bytes()
    journal.write_bytes(kept + junk)
    assert (
        len(Journal(model.with_name("small.onnx"), opened(model)).points) == kept.count(b"\n") - 1
    )
    assert journal.read_bytes() == kept


@pytest.mark.parametrize("line", HOSTILE)
@pytest.mark.parametrize("last", [False, True])
def test_what_somebody_made_up_is_refused_and_left(
    model: Path, journal: Path, line: bytes, last: bool
) -> None:
    first, *others = journal.read_bytes().splitlines()
    lines = [first, *others, line] if last else [first, line, *others]
    journal.write_bytes(b"".join(each + b"\n" for each in lines))
    before = journal.read_bytes()
    with pytest.raises(rnnx.InputError, match="is damaged") as refused:
        searched(model)
    assert "remove" in (refused.value.hint or "")
    assert journal.read_bytes() == before
    assert not model.with_name("small.onnx").exists()


def _score(outputs: dict[str, Array], inputs: dict[str, Array]) -> float:
    return float(outputs["y"].mean())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"calibration": X[:, :70]}, "the data"),
        ({"chunk": 2}, "the chunk"),
        ({"batch": 2}, "the batch"),
        ({"metric": _score}, "the metric"),
    ],
)
def test_the_journal_of_another_search_is_refused_and_left(
    model: Path, journal: Path, change: dict[str, Any], reason: str
) -> None:
    before = journal.read_bytes()
    with pytest.raises(rnnx.InputError, match=f"of another search: {reason} differs"):
        searched(model, **change)
    assert journal.read_bytes() == before


def test_the_journal_of_another_artifact_or_release_is_refused(model: Path, journal: Path) -> None:
    first, *others = journal.read_bytes().splitlines(keepends=True)
    record = json.loads(first)
    for name in ("the artifact", "the release of rnnx", "the release of onnxruntime"):
        journal.write_bytes(
            json.dumps(record | {name: "other"}).encode() + b"\n" + b"".join(others)
        )
        with pytest.raises(rnnx.InputError, match=f"of another search: {name} differs"):
            searched(model)


@pytest.mark.parametrize("content", [b"", b"mine", b"mine\n", b"[1]\n{}\n", b"{}\n"])
def test_a_file_that_is_no_journal_is_left_as_it_is(model: Path, content: bytes) -> None:
    path = model.with_name("small.onnx.journal.jsonl")
    path.write_bytes(content)
    with pytest.raises(rnnx.InputError, match="is no journal"):
        searched(model)
    assert path.read_bytes() == content


@pytest.mark.parametrize("lie", [130.0, 1e300])
def test_figures_that_lie_are_found_out(model: Path, journal: Path, lie: float) -> None:
    """Nothing is believed: the file that is written is measured itself."""
    first, *others = journal.read_bytes().splitlines()
    lies = [json.dumps(json.loads(line) | {"snr_db": lie}).encode() for line in others]
    journal.write_bytes(b"".join(line + b"\n" for line in (first, *lies)))
    with pytest.raises(rnnx.QuantizationError, match="does not keep snr=60") as refused:
        searched(model, budget="snr=60")
    assert "small.onnx.journal.jsonl" in (refused.value.hint or "")
    assert not model.with_name("small.onnx").exists()


def test_figures_that_lie_below_cost_nothing_but_size(model: Path, journal: Path) -> None:
    first, *others = journal.read_bytes().splitlines()
    lies = [json.dumps(json.loads(line) | {"snr_db": -1e300}).encode() for line in others]
    journal.write_bytes(b"".join(line + b"\n" for line in (first, *lies)))
    assert (searched(model, budget="snr=60").worst_snr_db or 0) >= 60


@given(place=st.floats(0, 1), junk=st.binary(max_size=8), missing=st.integers(0, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_damage_does_more_than_to_be_refused(
    model: Path, ended: bytes, place: float, junk: bytes, missing: int
) -> None:
    start = round(place * len(ended))
    damaged = ended[:start] + junk + ended[start + missing :]
    model.with_name("small.onnx.journal.jsonl").write_bytes(damaged)
    with contextlib.suppress(rnnx.InputError):
        assert Journal(model.with_name("small.onnx"), opened(model)).points

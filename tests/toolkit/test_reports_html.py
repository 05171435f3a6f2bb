"""The HTML report: what its pictures are drawn from, and that it needs nothing besides itself."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import faults
import rnnx
from faults import plant
from networks import NETWORKS
from reported import failure, finding, report
from rnnx.parity.evidence import Evidence, Span, gather
from rnnx.parity.reports import html

Floats = npt.NDArray[np.float64]
VOID = {"meta", "br", "hr", "img"}


def evidence(actual: Floats, exact: Floats, **facts: Any) -> Evidence:
    """Of `[batch, time, features]`, with the same limit everywhere."""
    worst = np.unravel_index(np.abs(actual - exact).argmax(), actual.shape)
    index = tuple(int(i) for i in worst)
    found = failure(index=index, time_step=index[1], **facts)
    kept = gather(found, Span(actual, exact, exact, np.full(exact.shape, 1e-3), 0, 1))
    assert kept is not None
    return kept


# --- evidence


@given(
    frames=st.integers(1, 3000),
    features=st.integers(1, 150),
    place=st.tuples(st.integers(0, 2), st.floats(0, 1), st.floats(0, 1)),
)
def test_the_worst_element_is_kept_of_any_size(
    frames: int, features: int, place: tuple[int, float, float]
) -> None:
    row, step, value = place[0], int(place[1] * (frames - 1)), int(place[2] * (features - 1))
    exact = np.zeros((3, frames, features))
    actual = exact.copy()
    actual[row, step, value] = 0.25
    kept = evidence(actual, exact)
    assert kept.sequence == row
    assert kept.size == (frames, features)
    assert kept.error.shape == (len(kept.steps), len(kept.values))
    assert kept.error.size <= 1024 * 64
    at = np.unravel_index(kept.error.argmax(), kept.error.shape)
    assert (kept.steps[at[0]], kept.values[at[1]]) == (step, value)
    assert kept.error.max() == 0.25


def test_each_stretch_of_frames_keeps_its_worst() -> None:
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((1, 5000, 3))
    actual = exact + rng.standard_normal(exact.shape) * 1e-3
    kept = evidence(actual, exact)
    length = 5  # the fewest of which 1024 stretches are 5000
    error = np.abs(actual - exact)[0].max(1).reshape(-1, length)
    np.testing.assert_array_equal(kept.error.max(1), error.max(1))
    np.testing.assert_array_equal(kept.steps // length, np.arange(1000))


def test_what_cannot_be_subtracted_is_no_evidence() -> None:
    one, two = np.zeros((1, 2, 3)), np.zeros((1, 2, 4))
    assert gather(failure(), Span(one, two, two, two, 0, 1)) is None
    none = np.zeros((0, 2, 3))
    assert gather(failure(), Span(none, none, none, none, 0, 1)) is None


def test_a_nan_is_infinitely_far() -> None:
    exact = np.zeros((1, 4, 2))
    actual = exact.copy()
    actual[0, 2, 1] = np.nan
    kept = gather(
        failure(index=(0, 2, 1), time_step=2), Span(actual, exact, exact, exact + 1e-3, 0, 1)
    )
    assert kept is not None
    assert np.isinf(kept.error[2, 1])
    assert np.isfinite(kept.error).sum() == 7


def test_a_check_keeps_the_worst_of_each_output(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    path = tmp_path / "off.onnx"
    plant(exported("lstm", streaming=True), path, faults.scaled("y", 1.01))
    model = NETWORKS["lstm"]()[0]
    found = rnnx.check(path, model, probes=["sequence"], seed=4)
    kept = {evidence.finding.output: evidence for evidence in found.evidence}
    assert kept.keys() == {"y", "s000", "s001", "s002", "s003"}
    y = kept["y"]
    assert found.worst == replace(y.finding, inputs_sha256=found.worst.inputs_sha256)
    assert y.error.max() == pytest.approx(y.finding.max_abs, rel=1e-12)
    # An error of 1 % stands over a limit of 1e-5 + 1e-4 of the value wherever that is not small.
    np.testing.assert_allclose(y.error, 0.01 * np.abs(y.exact), rtol=0.01, atol=1e-7)
    large = np.abs(y.exact) > 5e-3
    assert (y.error > y.allowed)[large].all()
    assert (kept["s000"].error <= kept["s000"].allowed).all()


def test_the_hashes_are_those_of_what_went_in(exported: Callable[..., Path]) -> None:
    import hashlib

    path, model = exported("lstm", streaming=True), NETWORKS["lstm"]()[0]
    first, again, other = (
        rnnx.check(path, model, probes=["sequence"], seed=seed) for seed in (1, 1, 2)
    )
    assert first.artifact_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    hashes = [[f.inputs_sha256 for f in found.findings] for found in (first, again, other)]
    assert hashes[0] == hashes[1]
    assert not set(hashes[0]) & set(hashes[2])
    assert len(set(hashes[0])) == 3  # runs, each of five outputs and states
    assert first.machine["torch_threads"] == torch.get_num_threads()


# --- HTML


class Document(HTMLParser):
    """Reads a document, and holds that every tag is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def one_page(*evidences: Evidence) -> str:
    found = [evidence.finding for evidence in evidences] or [finding()]
    return report(*found, artifact="<m>.onnx", evidence=evidences).render("html")


@pytest.fixture(scope="module")
def page() -> str:
    rng = np.random.default_rng(0)
    exact = rng.standard_normal((2, 40, 6))
    broken = exact + 1e-8
    broken[1, 20:, 3] += 0.5
    plain, chunked = evidence(broken, exact), evidence(broken, exact, run={"chunk": 7}, output="z")
    states = failure(output="s000", index=(1, 2), time_step=None)
    last, limit = exact[:, -1], np.full((2, 6), 1e-3)
    state = gather(states, Span(last + 1, last, last, limit, 0, None))
    assert state is not None
    return one_page(plain, chunked, state)


def test_a_page_is_whole_and_reaches_for_nothing(page: str) -> None:
    document = Document(page)
    assert document.tags.count("svg") == 3
    assert "script" not in document.tags
    assert "link" not in document.tags
    reaching = {"src", "href", "xlink:href", "srcset", "data", "action", "poster"}
    for name, value in document.attributes:
        if name in reaching:
            assert value.startswith(("#", "data:")), (name, value[:80])
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_its_pictures_are_svg_and_say_what_they_show(page: str) -> None:
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    texts = [" ".join(ElementTree.fromstring(picture).itertext()) for picture in pictures]
    assert all("Distance from the reference" in text for text in texts)
    assert ["Where it breaks" in text for text in texts] == [True, True, False]


def test_text_stays_text() -> None:
    hostile = failure(output="<script>alert(1)</script>", reason="</table>&amp;")
    document = Document(report(hostile, artifact='"><b>').render("html"))
    assert "script" not in document.tags
    assert "b" not in document.tags
    assert any("</table>&amp;" in text for text in document.text)


def test_equal_reports_are_equal_pages(page: str) -> None:
    exact = np.ones((1, 9, 2))
    kept = evidence(exact + 1e-6, exact)
    assert one_page(kept) == one_page(kept)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e300, 1e-300])
def test_values_without_a_logarithm_are_drawn(value: float) -> None:
    exact = np.zeros((1, 5, 2))
    actual = exact.copy()
    actual[0, 3, 1] = value
    found = failure(index=(0, 3, 1), time_step=3)
    kept = gather(found, Span(actual, exact, exact, exact + 1e-5, 0, 1))
    assert kept is not None
    Document(one_page(kept))


def test_one_frame_and_one_value_is_drawn() -> None:
    exact = np.ones((1, 1, 1))
    Document(one_page(evidence(exact * 2, exact)))


def test_more_pictures_than_anyone_looks_at_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "draw", lambda evidence: "<svg></svg>")
    exact = np.ones((1, 2, 1))
    many = [evidence(exact * 2, exact, output=f"y{number}") for number in range(14)]
    text = one_page(*many)
    assert text.count("<figure>") == 12
    assert "2 more outputs" in text


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(rnnx.MissingExtraError, match="an HTML report needs") as raised:
        report(finding()).render("html")
    assert raised.value.hint == "pip install 'rnnx[report]'"

"""What the documentation shows is what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from command_line import run

ROOT = Path(__file__).parents[2]
SHOWN = re.compile(r"^    \$ rnnx ((?:.+\\\n)*.+)\n((?:    .+\n)+)", re.MULTILINE)
ROW = re.compile(r"^    ([0-9]+,-?[0-9.]+)$", re.MULTILINE)
MEASURED = re.compile(r"[0-9.]+e-[0-9]+|[0-9.]+ KB")


@pytest.mark.full
def test_the_streaming_page_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = "docs/examples/keyword_spotter.py"
    (tmp_path / example).parent.mkdir(parents=True)
    (tmp_path / example).write_bytes((ROOT / example).read_bytes())
    monkeypatch.chdir(tmp_path)
    shown = SHOWN.findall((ROOT / "docs/streaming.md").read_text())
    assert len(shown) == 2
    for command, output in shown:
        ended = run(capsys, *shlex.split(command.replace("\\\n", " ")))
        expected = re.sub("(?m)^    ", "", output)
        assert MEASURED.sub("#", ended.out) == MEASURED.sub("#", expected), command


@pytest.mark.parametrize("page", ["README.md", "docs/recurrent-networks.md"])
def test_the_pages_show_what_the_shipped_forecaster_says(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ROW.findall((ROOT / page).read_text("utf-8"))
    assert len(rows) == 3
    said = run(capsys, "demo", "stream").out.splitlines()[1:4]
    shown, found = (np.loadtxt(lines, delimiter=",") for lines in (rows, said))
    np.testing.assert_allclose(found, shown, rtol=1e-5)

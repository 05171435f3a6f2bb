from __future__ import annotations

import os
from pathlib import Path

import pytest

from rnnx_runtime import ArtifactError
from rnnx_runtime.files import replacing


def test_the_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    with replacing(target) as beside:
        beside.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_after_a_failure_all_is_as_before(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    with pytest.raises(error):
        write_and_fail(target, error)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def write_and_fail(target: Path, error: type[BaseException]) -> None:
    with replacing(target) as beside:
        beside.write_text("half")
        raise error


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "out.csv"):
        pass
    (tmp_path / "plain").touch()
    assert (tmp_path / "out.csv").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no folder"), replacing(tmp_path / "no" / "out.csv"):
        pass

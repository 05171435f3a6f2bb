from __future__ import annotations

import os
from pathlib import Path

import pytest

from rnnx_runtime import ArtifactError, InputError
from rnnx_runtime.files import refuse_overwriting, replacing


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
    with pytest.raises(ArtifactError, match="no folder") as caught:
        replacing(tmp_path / "no" / "out.csv").__enter__()
    assert "Make the folder first" in (caught.value.hint or "")


SPELLINGS = ("m.onnx", "./m.onnx", "folder/../m.onnx", "linked.onnx", "hard.onnx")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_is_read_is_not_written_over(tmp_path: Path, spelling: str) -> None:
    source = tmp_path / "m.onnx"
    source.write_text("read")
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked.onnx").symlink_to(source)
    os.link(source, tmp_path / "hard.onnx")
    with pytest.raises(InputError, match=r"overwrite '.*m\.onnx'") as caught:
        refuse_overwriting(f"{tmp_path}/{spelling}", None, tmp_path / "gone", source)
    assert caught.value.hint


def test_another_file_may_be_written_over(tmp_path: Path) -> None:
    for name in ("m.onnx", "other.onnx"):
        (tmp_path / name).write_text("the same")
    for name in ("other.onnx", "new.onnx", "gone/new.onnx"):
        refuse_overwriting(tmp_path / name, tmp_path / "m.onnx", None)

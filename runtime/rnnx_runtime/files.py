"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnx_runtime.errors import ArtifactError, InputError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file beside `path` to write; it takes the place of `path` if nothing is raised.

    Raises:
        ArtifactError: the folder does not exist, or `path` is one itself.
    """
    target = writable(path)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix
    )
    os.close(handle)
    try:
        yield Path(name)
        _publish(name, target)
    except BaseException:
        os.unlink(name)
        raise


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """The hash of a file's bytes, in hex."""
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable(path: str | os.PathLike[str]) -> Path:
    """`path`, if a file may be written there.

    Raises:
        ArtifactError: the folder does not exist, or `path` is one itself.
    """
    target = Path(path)
    refuse_homeless(target)
    if target.is_dir():
        raise ArtifactError(
            f"{str(target)!r} is a folder, not a file to write", hint="Name a file in it."
        )
    return target


def refuse_homeless(target: Path) -> None:
    """Refuse to write in a folder that does not exist.

    Raises:
        ArtifactError: it does not.
    """
    if not target.parent.is_dir():
        raise ArtifactError(
            f"no folder {str(target.parent)!r} to write {target.name!r} in",
            hint="Make the folder first, or name another one.",
        )


def refuse_overwriting(
    path: str | os.PathLike[str], *sources: str | os.PathLike[str] | None
) -> None:
    """Refuse to write a file or folder over one that is read; None is none.

    Raises:
        InputError: `path` is one of `sources`, however it is spelt or linked to.
    """
    for source in sources:
        if source is not None and _are_same(path, source):
            raise InputError(
                f"writing {os.fspath(path)!r} would overwrite {os.fspath(source)!r}, which is read",
                hint="Give another name to write to.",
            )


def _are_same(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)


def _publish(name: str, target: Path) -> None:
    """Give the file the rights a new file has (temporary files are private), then rename it."""
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)
    os.replace(name, target)

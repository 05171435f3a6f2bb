"""Files that are whole on the disk at a known moment, whatever ends the process after it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnx_runtime.errors import StreamError


class KeptFile:
    """A text file that is written in place, and cut back to where a record of it was made.

    Args:
        path: the file; what it holds is lost, unless there is a record.
        record: what `sync` returned when the file was as it is to be again.

    Raises:
        StreamError: the file does not begin with what the record says.
    """

    def __init__(self, path: str, record: Mapping[str, Any] | None = None) -> None:
        self.position = 0
        self._digest = hashlib.sha256()
        if record is not None:
            self._verify(path, record)
        self._file = open(path, "wb" if record is None else "r+b")  # noqa: SIM115, see __exit__
        self._file.truncate(self.position)
        self._file.seek(self.position)
        sync_folder(path)

    def __enter__(self) -> KeptFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, text: str) -> None:
        """Put text behind what was written."""
        data = text.encode()
        self._file.write(data)
        self._digest.update(data)
        self.position += len(data)

    def flush(self) -> None:
        """Let others see what was written."""
        self._file.flush()

    def sync(self) -> dict[str, Any]:
        """Bring it to the disk; the record of how it is now."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return {"bytes": self.position, "sha256": self._digest.hexdigest()}

    def _verify(self, path: str, record: Mapping[str, Any]) -> None:
        length = record["bytes"]
        found = os.path.getsize(path) if Path(path).is_file() else 0
        if found < length:
            raise StreamError(
                f"{path!r} has {found} bytes, but {length} were written by the checkpoint's time",
                hint="Put the file back as it was, or remove the checkpoint to begin anew.",
            )
        with open(path, "rb") as file:
            while block := file.read(min(1 << 20, length - self.position)):
                self._digest.update(block)
                self.position += len(block)
        if self._digest.hexdigest() != record["sha256"]:
            raise StreamError(
                f"{path!r} is not what was written by the checkpoint's time: it was changed",
                hint="Put the file back as it was, or remove the checkpoint to begin anew.",
            )


def write_durably(path: str, data: bytes) -> None:
    """Put `data` in the place of `path`: at any moment, the disk holds all of the old or the new.

    The name beside it is always the same, so that what a killed process left is written over.
    """
    beside = f"{path}.new"
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
    sync_folder(path)


def sync_folder(path: str) -> None:
    """Bring the names in the folder of `path` to the disk."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    folder = os.open(Path(path).resolve().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""A checkpoint: all that a killed run must know to go on, as portable bytes.

Layout: `RNNXCKPT`, header length (uint32), header (JSON), the stream's snapshot, and a SHA-256 over
all of it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnx.kept_file import write_durably
from rnnx_runtime.errors import StreamError

MAGIC = b"RNNXCKPT"
VERSION = 1
_LENGTH = struct.Struct("<I")
_HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A moment of a run.

    Attributes:
        identity: what makes it this run: the input, the artifact and the options, by name.
        frames: fed.
        output: the record of the output file.
        sink: the sink's memory.
        finished: whether the run has ended.
        snapshot: the stream's.
    """

    identity: Mapping[str, Any]
    frames: int
    output: Mapping[str, Any]
    sink: Mapping[str, Any]
    finished: bool
    snapshot: bytes

    def save(self, path: str) -> None:
        """Put it in the place of the last one, on the disk."""
        record = asdict(self)
        snapshot = record.pop("snapshot")
        header = json.dumps({"version": VERSION} | record).encode()
        body = b"".join([MAGIC, _LENGTH.pack(len(header)), header, snapshot])
        write_durably(path, body + hashlib.sha256(body).digest())

    def hold(self, path: str, identity: Mapping[str, Any]) -> None:
        """Refuse to go on with another run.

        Raises:
            StreamError: its input, artifact or an option is another; says which.
        """
        other = [name for name in identity if self.identity.get(name) != identity[name]]
        if other:
            raise StreamError(
                f"the checkpoint {path!r} is of another run: {', '.join(other)} differs",
                hint=f"Run the command that wrote it, or remove {path} to begin anew.",
            )


def load(path: str) -> Checkpoint | None:
    """The checkpoint at `path`; None where there is none yet.

    Raises:
        StreamError: the file is no checkpoint, is damaged, or comes from another version.
    """
    if not Path(path).exists():
        return None
    data = Path(path).read_bytes()
    body, digest = data[:-_HASH_BYTES], data[-_HASH_BYTES:]
    if not data.startswith(MAGIC):
        raise StreamError(f"{path!r} is not a checkpoint", hint="Give the name of another file.")
    if hashlib.sha256(body).digest() != digest:
        raise _damaged(path, "its hash does not match; bytes are missing or changed")
    try:
        return _parse(body)
    except (KeyError, TypeError, ValueError, RecursionError, struct.error) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def file_digest(path: str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse(body: bytes) -> Checkpoint:
    start = len(MAGIC) + _LENGTH.size
    end = start + _LENGTH.unpack_from(body, len(MAGIC))[0]
    header = json.loads(body[start:end])
    version = header.pop("version")
    if version != VERSION:
        raise ValueError(f"version {version!r} is not {VERSION}")
    return Checkpoint(**header, snapshot=body[end:])


def _damaged(path: str, reason: str) -> StreamError:
    return StreamError(
        f"the checkpoint {path!r} is damaged: {reason}",
        hint=f"Remove {path} to begin anew.",
    )

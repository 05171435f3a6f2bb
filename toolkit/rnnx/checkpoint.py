"""A checkpoint: all a killed run must know to go on, a sealed record around a stream's snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rnnx.kept_file import write_durably
from rnnx_runtime import sealed
from rnnx_runtime.errors import StreamError

MAGIC = b"RNNXCKPT"
VERSION = 1


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
        write_durably(path, sealed.seal(MAGIC, VERSION, record, snapshot))

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
    if not data.startswith(MAGIC):
        raise StreamError(f"{path!r} is not a checkpoint", hint="Give the name of another file.")
    if not sealed.is_whole(MAGIC, data):
        raise _damaged(path, "its hash does not match; bytes are missing or changed")
    try:
        header, snapshot = sealed.unseal(MAGIC, VERSION, data)
        return Checkpoint(**header, snapshot=bytes(snapshot))
    except sealed.ERRORS as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _damaged(path: str, reason: str) -> StreamError:
    return StreamError(
        f"the checkpoint {path!r} is damaged: {reason}",
        hint=f"Remove {path} to begin anew.",
    )

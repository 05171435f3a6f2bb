"""What a search has measured so far, kept beside its result, so that it goes on where it ended.

A line of JSON that tells of which search, and one for each file that was measured.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import sys
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

from rnnx.hashing import sha256_of_runs
from rnnx.kept_file import write_durably
from rnnx.parity.metric import Metric
from rnnx.quantization.original import Original
from rnnx.quantization.pair import OTHER_FILE
from rnnx.quantization.report import Point
from rnnx_runtime import sealed
from rnnx_runtime.errors import InputError
from rnnx_runtime.files import sha256_of_file, writable

SUFFIX = ".journal.jsonl"
_PACKAGES = ("rnnx", "onnxruntime", "numpy")

Key = tuple[str, frozenset[tuple[str, int]]]  # the name of a point, and its bits
Points = dict[Key, Point | None]


class Journal:
    """The points that a search has measured; inside `with`, removed where nothing is raised.

    Args:
        dst: the result, beside which it is kept.
        original: the artifact that is searched, as it is deployed.

    Attributes:
        path: of its file.
        points: what was measured; None for what could not be made.

    Raises:
        ArtifactError: `dst` has no folder.
        InputError: there is one of another search, or one that is damaged before its last line.
    """

    def __init__(self, dst: str | os.PathLike[str], original: Original) -> None:
        self.path = writable(f"{os.fspath(writable(dst))}{SUFFIX}")
        self._identity = _identity(original)
        self.points: Points = self._read() if self.path.exists() else {}

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, error: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is None:
            self.path.unlink(missing_ok=True)

    def add(self, key: Key, point: Point | None) -> None:
        """Keep what was measured, on the disk."""
        if not self.path.exists():
            write_durably(str(self.path), _line(self._identity))
        with open(self.path, "ab") as file:
            file.write(_line(_record(key, point)))
            file.flush()
            os.fsync(file.fileno())
        self.points[key] = point

    def _read(self) -> Points:
        """What is there; what a process that was killed left of a line is cut off."""
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        first, *lines = whole.split(b"\n")
        other = self._differing(first)
        if other == [OTHER_FILE]:  # another budget chose another encoder: its figures are past use
            self.path.unlink()
            return {}
        if other:
            raise self._unusable(f"is of another search: {', '.join(other)} differs")
        if lines and not _is_json(lines[-1]):
            lines.pop()
        try:
            points = dict(map(_parsed, lines))
        except sealed.ERRORS as error:
            raise self._unusable(f"is damaged: {type(error).__name__}: {error}") from error
        os.truncate(self.path, sum(len(line) + 1 for line in (first, *lines)))
        return points

    def _differing(self, line: bytes) -> list[str]:
        """What is not as in this search."""
        found = json.loads(line) if _is_json(line) else None
        if not isinstance(found, dict) or found.keys() != self._identity.keys():
            raise self._unusable("is no journal of a search")
        return [name for name, value in self._identity.items() if found[name] != value]

    def _unusable(self, reason: str) -> InputError:
        return InputError(
            f"{str(self.path)!r} {reason}",
            hint=f"Run the command that began it, or remove {self.path} to begin anew.",
        )


def _identity(original: Original) -> dict[str, Any]:
    """What must be the same for a search to go on, by the name that a person knows it by."""
    return {
        "the artifact": sha256_of_file(original.path),
        "the data": sha256_of_runs(original.data),
        "the chunk": original.chunk,
        "the batch": original.batch,
        "the metric": None if original.metric is None else _code_of(original.metric),
        **({} if original.pair is None else original.pair.identity()),
        **{f"the release of {name}": version(name) for name in _PACKAGES},
    }


def _code_of(metric: Metric) -> str:
    """The metric's name, and the hash of the file it stands in, where there is one."""
    try:
        path = inspect.getsourcefile(metric.function)
    except TypeError:  # an object that is called, or a function that is not Python's
        path = None
    return f"{metric.name} {sha256_of_file(path)}" if path and Path(path).is_file() else metric.name


def _record(key: Key, point: Point | None) -> dict[str, Any]:
    name, bits = key
    record = {"name": name, "bits": dict(sorted(bits)), "bytes": None}
    if point is None:
        return record
    return record | {"bytes": point.bytes, "snr_db": point.snr_db, "figure": point.figure}


def _parsed(line: bytes) -> tuple[Key, Point | None]:
    """Read a line that `_record` wrote.

    Raises:
        One of `sealed.ERRORS`: somebody made it up.
    """
    record = json.loads(line)
    name, bits, size = str(record["name"]), dict(record["bits"]), record["bytes"]
    key = name, frozenset((str(part), _whole(count)) for part, count in bits.items())
    if size is None and not bits:  # a level; a mixture can always be made
        return key, None
    snr_db, figure = _number(record["snr_db"]), _number(record["figure"])
    return key, Point(name, _whole(size), snr_db, bits, figure)


def _whole(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= sys.maxsize:
        raise ValueError(f"{value!r} is no count")
    return value


def _number(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True

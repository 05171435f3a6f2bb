"""An encoder-decoder's folder is written whole or not at all, and takes nobody else's place."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnx_runtime.errors import ArtifactError
from rnnx_runtime.files import refuse_homeless
from rnnx_runtime.seq2seq import CONTRACT, ENCODER, STEP, load_seq2seq_contract

GREEDY = "greedy.onnx"
_OURS = frozenset({CONTRACT, ENCODER, STEP, GREEDY})


@contextmanager
def replacing_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder beside `folder` to fill; it takes the place of `folder` if nothing is raised.

    Raises:
        ArtifactError: `folder` holds anything but an earlier export, or stands in no folder.
    """
    target = Path(os.path.realpath(folder))
    _refuse_foreign(target)
    beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield beside
        _refuse_foreign(target)  # somebody may have written there meanwhile
        _publish(beside, target)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _refuse_foreign(target: Path) -> None:
    refuse_homeless(target)
    if target.exists() and not _is_ours(target):
        raise ArtifactError(
            f"{str(target)!r} holds something else than an earlier export, and is left as it is",
            hint="Give a new or an empty folder.",
        )


def _is_ours(target: Path) -> bool:
    """Whether it is an empty folder, or one with nothing in it but an export."""
    if not target.is_dir():
        return False
    names = {path.name for path in target.iterdir()}
    if not names:
        return True
    try:
        load_seq2seq_contract(target)
    except ArtifactError:
        return False
    return names <= _OURS


def _publish(beside: Path, target: Path) -> None:
    """Give the folder the rights a new one has, and put it in the place of the old one."""
    umask = os.umask(0)
    os.umask(umask)
    beside.chmod(0o777 & ~umask)
    old = beside.with_name(f"{beside.name}.old")
    if target.exists():
        target.rename(old)
    try:
        beside.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)

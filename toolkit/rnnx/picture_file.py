"""The files that pictures are drawn into."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rnnx_runtime.errors import InputError
from rnnx_runtime.files import replacing, writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ENDINGS = (".png", ".svg", ".pdf")


def refuse_unfit(path: str | os.PathLike[str]) -> None:
    """Refuse a file that no picture can be drawn into.

    Raises:
        InputError: its ending is no picture's.
        ArtifactError: it has no folder, or is one.
    """
    if Path(path).suffix.lower() not in _ENDINGS:
        raise InputError(f"{os.fspath(path)!r} is no .png, .svg or .pdf file", hint="Name it so.")
    writable(path)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the picture, whole or not at all, in the format that the ending names.

    Raises:
        InputError: it names none.
        ArtifactError: the file has no folder, or is one.
    """
    refuse_unfit(path)
    with replacing(path) as beside:
        figure.savefig(beside)

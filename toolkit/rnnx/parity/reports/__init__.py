"""The formats of a report, one module each with `render(report)`, and where they are written."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from rnnx.extras import load
from rnnx_runtime.errors import InputError
from rnnx_runtime.files import replacing, writable

if TYPE_CHECKING:
    from rnnx.parity.report import Report

KINDS = ("text", "json", "junit", "markdown", "github", "html")


@dataclass(frozen=True, slots=True)
class Destination:
    """A format and the file it goes to; `-` is stdout."""

    kind: str
    path: str

    @property
    def is_stdout(self) -> bool:
        """Whether it is printed, not written."""
        return self.path == "-"


def destination(text: str) -> Destination:
    """Read `junit:parity.xml`, and make sure now that it can be written later.

    Raises:
        InputError: it names no kind or no file, or nothing can be written there.
        ArtifactError: the folder does not exist, or the file is a folder.
        MissingExtraError: it is HTML, and matplotlib is not installed.
    """
    kind, _, path = text.partition(":")
    _refuse_unknown(kind)
    if not path:
        raise InputError(
            f"{text!r} does not say where the report goes",
            hint=f"Write KIND:FILE, or KIND:- for stdout: {kind}:-",
        )
    if kind == "html":
        load("matplotlib", "an HTML report")
    found = Destination(kind, path)
    if not found.is_stdout:
        _refuse_unwritable(path)
    return found


def render(report: Report, kind: str) -> str:
    """The report in one of the formats.

    Raises:
        InputError: there is no such kind.
        MissingExtraError: it is HTML, and matplotlib is not installed.
    """
    _refuse_unknown(kind)
    if kind == "html":
        load("matplotlib", "an HTML report")
    rendered: str = import_module(f"rnnx.parity.reports.{kind}").render(report)
    return rendered


def write(report: Report, destinations: Iterable[Destination]) -> None:
    """Write each file whole: beside its place first, then renamed."""
    for found in destinations:
        with replacing(found.path) as beside:
            beside.write_text(render(report, found.kind) + "\n", encoding="utf-8")


def _refuse_unknown(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(
            f"there is no report of the kind {kind!r}", hint=f"Choose from {', '.join(KINDS)}."
        )


def _refuse_unwritable(path: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=writable(path).parent):
            pass
    except OSError as error:
        raise InputError(
            f"no report can be written at {path!r}: {error.strerror}",
            hint="Name a file in a folder that you may write to.",
        ) from error

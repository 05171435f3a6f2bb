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
class Target:
    """A format and the file it goes to; `-` is stdout."""

    kind: str
    path: str

    @property
    def is_stdout(self) -> bool:
        """Whether it is printed, not written."""
        return self.path == "-"


def read_targets(texts: Iterable[str]) -> list[Target]:
    """Read `junit:parity.xml` and others, and make sure now that each can be written later.

    Raises:
        InputError: one names no kind or no file, two one file, or it cannot be written.
        ArtifactError: the folder does not exist, or the file is a folder.
        MissingExtraError: one is HTML, and matplotlib is not installed.
    """
    targets = [_read_target(text) for text in texts]
    files = [target.path for target in targets if not target.is_stdout]
    twice = [path for path in files if files.count(path) > 1]
    if twice:
        raise InputError(
            f"two reports go to {twice[0]!r}", hint="Give each report a file of its own."
        )
    return targets


def render(report: Report, kind: str) -> str:
    """The report in one of the formats.

    Raises:
        InputError: there is no such kind.
        MissingExtraError: it is HTML, and matplotlib is not installed.
    """
    _refuse_unmakeable(kind)
    rendered: str = import_module(f"rnnx.parity.reports.{kind}").render(report)
    return rendered


def write(report: Report, targets: Iterable[Target]) -> None:
    """Write each file whole: beside its place first, then renamed."""
    for target in targets:
        with replacing(target.path) as beside:
            beside.write_text(render(report, target.kind) + "\n", encoding="utf-8")


def _read_target(text: str) -> Target:
    kind, _, path = text.partition(":")
    _refuse_unmakeable(kind)
    if not path:
        raise InputError(
            f"{text!r} does not say where the report goes",
            hint=f"Write KIND:FILE, or KIND:- for stdout: {kind}:-",
        )
    target = Target(kind, path)
    if not target.is_stdout:
        _refuse_unwritable(path)
    return target


def _refuse_unmakeable(kind: str) -> None:
    if kind not in KINDS:
        raise InputError(
            f"there is no report of the kind {kind!r}", hint=f"Choose from {', '.join(KINDS)}."
        )
    if kind == "html":
        load("matplotlib", "an HTML report")


def _refuse_unwritable(path: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=writable(path).parent):
            pass
    except OSError as error:
        raise InputError(
            f"no report can be written at {path!r}: {error.strerror}",
            hint="Name a file in a folder that you may write to.",
        ) from error

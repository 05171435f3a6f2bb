"""Runs the command line, in this process and in one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from rnnx.cli import _run, main

MAIN = (sys.executable, "-c", "from rnnx.cli import main; main()")


def exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *arguments: object, debug: bool = False) -> Ended:
    """Run `rnnx ARGUMENTS` in this process."""
    capsys.readouterr()
    code = _run([str(argument) for argument in arguments], debug=debug)
    return Ended(code, *capsys.readouterr())


def run_process(*arguments: object) -> Ended:
    """Run `rnnx ARGUMENTS` in a process of its own."""
    command = [*MAIN, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def run_without_reader(*arguments: object) -> Ended:
    """Run `rnnx ARGUMENTS` into a pipe whose reader has gone."""
    command = [*MAIN, *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
    return Ended(process.returncode, "", err)


def assert_refused(ended: Ended, says: str) -> None:
    """Exit code 2, nothing on stdout, one `error:` sentence that says so, no traceback."""
    assert ended.code == 2, ended
    assert ended.out == ""
    errors = [line for line in ended.err.splitlines() if line.lower().startswith("error:")]
    assert len(errors) == 1, ended.err
    assert says in errors[0]
    assert "Traceback" not in ended.err
    assert "fault in rnnx" not in ended.err


def listing(folder: Path) -> dict[str, bytes]:
    """The files under `folder` and what is in them."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

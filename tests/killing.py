"""Runs the command line in a process that kills itself, with SIGKILL, at a moment that is asked."""

from __future__ import annotations

import subprocess
import sys

SIGKILLED = -9

# A moment is a line of rnnx about to run: all between any two of its writes, syncs and renames.
_SCRIPT = """
import os, signal, sys

moment, passed = int(sys.argv.pop(1)), 0


def count(frame, event, arg):
    global passed
    passed += event == "line"
    if passed == moment:
        os.kill(os.getpid(), signal.SIGKILL)
    return count


def enter(frame, event, arg):
    return count if "toolkit/rnnx/" in frame.f_code.co_filename.replace(os.sep, "/") else None


import rnnx.feeding
from rnnx.cli import main

sys.settrace(enter)
try:
    main()
finally:
    sys.settrace(None)
    print("MOMENTS", passed, file=sys.stderr)
"""


def run_killed(*arguments: object, moment: int) -> subprocess.CompletedProcess[str]:
    """Run `rnnx ARGUMENTS` until the moment has come; 0 is never."""
    return subprocess.run(killed_command(*arguments, moment=moment), capture_output=True, text=True)


def killed_command(*arguments: object, moment: int) -> list[str]:
    """The command line of `run_killed`."""
    return [sys.executable, "-c", _SCRIPT, str(moment), *map(str, arguments)]


def moments(*arguments: object) -> int:
    """How many moments `rnnx ARGUMENTS` has."""
    done = run_killed(*arguments, moment=0)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.rpartition("MOMENTS ")[2])

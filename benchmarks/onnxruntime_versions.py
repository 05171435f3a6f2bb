"""The runtime's tests under old and new releases of onnxruntime, each in an environment of its own.

python benchmarks/onnxruntime_versions.py [VERSION ...]

Environments are made in .venv/onnxruntime and kept there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from rnnx.table import render

LOWEST = "lowest"  # of all that rnnx depends on
VERSIONS = (LOWEST, "1.22.1", "1.24.4", "1.27.0", "1.29.0", "1.32.0")
# What writes the tests' artifacts, and runs the tests; not torch.
TOOLS = ("onnx", "onnx-ir", "onnxscript", "hypothesis", "pytest")
ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".venv" / "onnxruntime"
OUTCOMES = ("passed", "failed", "error", "skipped")


def main(versions: Sequence[str]) -> int:
    rows = [[version, *outcome(version)] for version in versions or VERSIONS]
    print(render(["onnxruntime", *OUTCOMES], rows))
    return int(any(row[2:4] != ["0", "0"] for row in rows))


def outcome(version: str) -> list[str]:
    """How many tests ended in each way."""
    python = environment(version)
    command = [python, "-m", "pytest", "-q", "-m", "not full", "tests/runtime"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=sources())
    print(f"onnxruntime {version}\n{done.stdout[-4000:]}", file=sys.stderr)
    last = done.stdout.strip().splitlines()[-1]
    return [counted(last, name) for name in OUTCOMES]


def counted(line: str, name: str) -> str:
    found = re.search(rf"(\d+) {name}", line)
    return found[1] if found else "0"


def environment(version: str) -> str:
    """The interpreter of an environment with that version, made where there is none yet."""
    folder = ENVIRONMENTS / version
    python = str(folder / "bin" / "python")
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        packages = [*requirements(version), *TOOLS]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "ready").touch()
    return python


def requirements(version: str) -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    dependencies: list[str] = project["dependencies"]
    if version == LOWEST:
        return [line.replace(">=", "==") for line in dependencies]
    return [f"onnxruntime=={version}", *dependencies]


def sources() -> dict[str, str]:
    """The process's environment, in which the checkout's packages are found."""
    roots = os.pathsep.join(str(ROOT / name) for name in ("toolkit", "exporters", "runtime"))
    return os.environ | {"PYTHONPATH": roots}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

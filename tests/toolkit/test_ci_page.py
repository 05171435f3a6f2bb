"""The recipes of docs/ci.md: every command of rnnx in them is run, as it stands there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

import faults
from command_line import run
from faults import plant
from networks import NETWORKS
from rnnx.parity.reports import KINDS

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[2] / "docs" / "ci.md").read_text()
RECIPES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
(SUITE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
# A command goes on in lines that begin with an option.
COMMAND = re.compile(r"rnnx (check .*(?:\n +--.*)*)")
NET = 'from networks import NETWORKS\n\n\ndef build():\n    return NETWORKS["lstm"]()[0]\n'
INSTALLED = any(entry.name == "rnnx" for entry in entry_points(group="pytest11"))
PLUGIN = () if INSTALLED else ("-p", "rnnx.pytest_plugin")


def lay(folder: Path, artifact: Path) -> None:
    """The files that the page speaks of."""
    (folder / "net.py").write_text(NET)
    (folder / "model.onnx").write_bytes(artifact.read_bytes())
    torch.save(NETWORKS["lstm"]()[0].state_dict(), folder / "weights.pt")


def command_of(recipe: str) -> list[str]:
    (command,) = COMMAND.findall(recipe)
    return shlex.split(command.replace("\\\n", " "))


@pytest.mark.full
@pytest.mark.parametrize("recipe", RECIPES, ids=["github", "gitlab"])
@pytest.mark.parametrize("fault", [None, faults.scaled("y", 1.01)], ids=["equal", "off"])
def test_a_recipe_ends_with_the_verdict_and_writes_what_it_uploads(
    workplace: Path,
    exported: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    recipe: str,
    fault: faults.Fault | None,
) -> None:
    lay(workplace, exported("lstm", streaming=True))
    if fault is not None:
        plant(exported("lstm", streaming=True), workplace / "model.onnx", fault)
    before = set(workplace.iterdir())
    ended = run(capsys, *command_of(recipe))
    assert ended.code == (0 if fault is None else 1), ended.err
    written = {path.name for path in set(workplace.iterdir()) - before}
    # Each file is taken up further down, and no other is.
    assert written == set(re.findall(r"parity\.\w+", recipe))
    assert all(recipe.count(name) > 1 for name in written)


def test_every_recipe_has_a_command() -> None:
    assert [command_of(recipe)[0] for recipe in RECIPES] == ["check", "check"]


def test_every_kind_has_its_line() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(KINDS)


@pytest.mark.full
def test_the_suite_runs(pytester: pytest.Pytester, exported: Callable[..., Path]) -> None:
    lay(pytester.path, exported("lstm", streaming=True))
    pytester.makepyfile(test_model=SUITE)
    pytester.syspathinsert(pytester.path)
    pytester.runpytest(*PLUGIN, "--rnnx-update").assert_outcomes(passed=2)
    pytester.runpytest(*PLUGIN).assert_outcomes(passed=2)
    plant(pytester.path / "model.onnx", pytester.path / "model.onnx", faults.scaled("y", 1.01))
    pytester.runpytest(*PLUGIN).assert_outcomes(failed=2)

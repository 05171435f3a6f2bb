"""Classic uses of recurrent networks, trained on real data that comes inside packages.

Each recipe is one module that a reader understands at once: `rnnx.recipes.forecast`, and so on.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnnx.recipes.recipe import Recipe

NAMES = (
    "forecast",
    "charlm",
    "keywords",
    "speech",
    "tagger",
    "streaming_tagger",
    "entities",
    "phonemes",
    "translate",
    "summarize",
)


def find(name: str) -> Recipe:
    """The recipe of one of `NAMES`.

    Raises:
        ModuleNotFoundError: what it computes with is not installed.
    """
    recipe: Recipe = import_module(f"rnnx.recipes.{name}").RECIPE
    return recipe

"""The tables of docs/recipes.md: each recipe run with several seeds, on one thread.

    python benchmarks/recipes.py forecast charlm --seeds 3 --write

prints the table of each recipe and, with --write, puts it in the page between its two markers;
those of other recipes stay as they are.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import torch

from rnnx.cli.common import human_bytes
from rnnx.recipes import NAMES, find, pipeline
from rnnx.recipes.pipeline import Result
from rnnx.recipes.recipe import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="+", choices=NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cell", choices=("rnn", "gru", "lstm"))
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--write", action="store_true", help="put the tables in docs/recipes.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.names:
        recipe = find(name)
        results = [
            run(recipe, seed, cell=options.cell, full=options.full) for seed in range(options.seeds)
        ]
        print(section := table(recipe, results))
        if options.write:
            PAGE.write_text(with_section(PAGE.read_text("utf-8"), name, section), "utf-8")


def run(recipe: Recipe, seed: int, **options: object) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        result = pipeline.run(recipe, folder, seed=seed, tell=tell, **options)
        for name, note in result.notes.items():
            tell(f"{name}: {note}")
    if not result.passed:
        sys.exit(f"{recipe.name}, seed {seed}: the artifacts do not equal torch")
    return result


def tell(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def table(recipe: Recipe, results: list[Result]) -> str:
    """Markdown: a row for each form and baseline, the score of each seed, size and step."""
    metric, first = recipe.metric, results[0]
    seeds = [f"{metric.name}, seed {result.seed}" for result in results]
    lines = [["", "size", "one step", *seeds], ["---", *["---:"] * (2 + len(seeds))]]
    for row in first.rows:
        scores = [metric.text(result.row(row.name).score) for result in results]
        size = "" if row.bytes is None else human_bytes(row.bytes)
        step = "" if row.step_us is None else f"{row.step_us:.0f} us"
        lines.append([row.name, size, step, *scores])
    minutes = max(result.training_s for result in results) / 60
    told = f"{first.cell.upper()}; training took {minutes:.1f} minutes of CPU time at most."
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in lines] + ["", told])


def with_section(page: str, name: str, section: str) -> str:
    """The page with this between the markers of the recipe."""
    begin, end = f"<!-- {name}: benchmarks/recipes.py -->", f"<!-- {name}: end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        sys.exit(f"{PAGE} has no markers {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n{section}\n{end}", page)


if __name__ == "__main__":
    main()

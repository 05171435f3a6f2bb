"""Where the time of a step goes: onnxruntime's own profile of it, operator by operator.

Profiling costs a few microseconds a node, so what counts is how the operators compare.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

import click
import onnx_ir as ir
import torch
from conditions import on_one_core
from quantized_trained import bound, first, write_levels
from trained import FOLDER, NETS, Array, available

import rnnx
from rnnx.table import render
from rnnx_exporters.artifact import load_graph
from rnnx_exporters.step_form import step_form
from rnnx_runtime.session import edge_options, new_session

RUNS, WARM_UP = 2000, 200


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True)
@click.option("--net", "names", multiple=True, type=click.Choice(list(NETS)), help="Repeatable.")
def main(folder: Path, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    on_one_core()
    rows = []
    for name in names or available():
        train = first(NETS[name].series().parts()[0])
        with tempfile.TemporaryDirectory() as scratch:
            paths = write_levels(name, folder, Path(scratch), train)
            rows += [
                [name, level, *profile(path, train.x[None, :1])] for level, path in paths.items()
            ]
    print(render(["network", "level", "nodes", "all us", "operators, their number and us"], rows))


def profile(path: Path, frame: Array) -> list[str]:
    """The number of nodes, the time of all, and that of each operator, the longest first."""
    options = edge_options()
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = new_session(str(step_file(path)), options)
    run = bound(session, frame)
    for _ in range(RUNS):
        run()
    nodes = times_of_nodes(Path(session.end_profiling()))
    operators: dict[str, list[float]] = defaultdict(list)
    for (operator, _), time in nodes.items():
        operators[operator].append(time)
    longest = sorted(operators.items(), key=lambda each: -sum(each[1]))
    told = [f"{len(times)} {operator} {sum(times):.0f}" for operator, times in longest]
    return [str(len(nodes)), f"{sum(nodes.values()):.0f}", ", ".join(told)]


def step_file(path: Path) -> Path:
    """A file of the graph that a step of one sequence runs."""
    if rnnx.Model(path).step is None:
        return path
    step = path.with_suffix(".step.onnx")
    ir.save(step_form(load_graph(path), rnnx.load_contract(path)), step)
    return step


def times_of_nodes(path: Path) -> dict[tuple[str, str], float]:
    """The median time of each node in microseconds, by its operator and name."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in json.loads(path.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["args"]["op_name"], event["name"]].append(event["dur"])
    return {
        node: statistics.fmean(sorted(times)[: len(times) // 2]) for node, times in found.items()
    }


if __name__ == "__main__":
    main()

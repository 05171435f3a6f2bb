"""`rnnx export`: a PyTorch model becomes an ONNX artifact."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnx.cli.common import as_json, delay_text, human_bytes, print_json, talk

if TYPE_CHECKING:
    from rnnx.spec import Loaded
    from rnnx_runtime import Contract


@click.command("export")
@click.argument("spec")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False),
    help="The file to write.",
)
@click.option("--weights", metavar="FILE", help="A state dict to load into the model (.pt).")
@click.option(
    "--input",
    "declarations",
    multiple=True,
    metavar="NAME=DTYPE[DIMS]",
    help="An example input, free axes by name: 'x=float32[batch,time,40]'. Repeat for more.",
)
@click.option("--inputs", metavar="FILE", help="Example inputs from an .npz file instead.")
@click.option("--streaming", is_flag=True, help="Write a step from chunk to chunk, states carried.")
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    metavar="FRAMES",
    help="With --streaming: every call takes so many frames of one sequence; all shapes are fixed.",
)
@click.option("--opset", type=int, help="The ONNX opset; 18 by default.")
@as_json
def command(
    spec: str,
    output: str,
    weights: str | None,
    declarations: tuple[str, ...],
    inputs: str | None,
    streaming: bool,
    chunk: int | None,
    opset: int | None,
    as_json: bool,
) -> None:
    """Turn the PyTorch model SPEC into an ONNX artifact.

    SPEC is package.module:factory, path/file.py:factory or file.py:factory(args), or a torch.export
    .pt2 file. The factory returns an nn.Module, or the pair (model, example arguments).
    """
    from rnnx.spec import load_model
    from rnnx_exporters import export
    from rnnx_runtime.files import refuse_overwriting

    if chunk is not None and not streaming:
        raise click.UsageError("--chunk fixes the chunks of a stream: add --streaming")

    refuse_overwriting(output, spec.partition(":")[0], weights, inputs)
    talk(f"loading {spec}")
    loaded = load_model(spec, weights)
    args, dynamic_shapes = _examples(loaded, declarations, inputs)
    talk("exporting, and proving the graph equal to the model")
    contract = export(
        loaded.model,
        args,
        output,
        dynamic_shapes=dynamic_shapes,
        streaming=streaming,
        chunk=chunk,
        opset_version=opset,
    )
    if as_json:
        print_json(json.loads(contract.to_json()) | {"bytes": Path(output).stat().st_size})
    else:
        _tell(contract, spec, output, weights)


def _examples(
    loaded: Loaded, declarations: tuple[str, ...], inputs: str | None
) -> tuple[tuple[Any, ...], Any]:
    import torch

    from rnnx.examples import from_arrays, from_declarations

    if declarations and inputs:
        raise click.UsageError("--input and --inputs exclude each other")
    if isinstance(loaded.model, torch.export.ExportedProgram):
        if declarations or inputs:
            raise click.UsageError("a .pt2 program holds its own example inputs; give none")
        return (), None
    if declarations:
        return from_declarations(loaded.model, declarations)
    if inputs:
        return from_arrays(loaded.model, inputs), None
    if loaded.args is None:
        raise click.UsageError(
            "no example inputs: add --input 'x=float32[batch,time,40]', or let the factory return"
            " (model, example_arguments)"
        )
    return loaded.args, None


def _waiting(contract: Contract) -> str:
    """How late the outputs are, and how many frames a call takes."""
    late = delay_text(contract)
    if contract.chunk is not None:
        return f"{late}; every call takes {contract.chunk}"
    if (contract.first_chunk, contract.chunk_multiple) == (1, 1):
        return late
    return f"{late}; the first call takes {contract.first_chunk}, others {contract.chunk_multiple}"


def _tell(contract: Contract, spec: str, output: str, weights: str | None) -> None:
    kind = "streaming" if contract.streaming else "offline"
    operators = ", ".join(f"{count} {name}" for name, count in contract.operators.items())
    click.echo(f"wrote {output} ({human_bytes(Path(output).stat().st_size)}, {kind})")
    click.echo(f"operators  {operators}")
    for what, ports in (("input", contract.inputs), ("output", contract.outputs)):
        for port in ports:
            click.echo(f"{what:<10} {port}")
    if contract.states:
        dims = ", ".join(str(list(state.dims)) for state in contract.states)
        click.echo(f"states     {len(contract.states)}: {dims}".replace("'", ""))
    if contract.streaming:
        click.echo(f"delay      {_waiting(contract)}")
    difference = (contract.checked or {}).get("max_abs_difference", 0.0)
    click.echo(f"proven     largest difference from torch {difference:.1e}")
    if spec.endswith(".pt2"):  # no reference for a check: its sizes are frozen
        return
    command = ["rnnx", "check", output, "--against", spec]
    command += ["--weights", weights] if weights else []
    click.echo(f"next       {shlex.join(command)}")

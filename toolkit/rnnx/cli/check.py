"""`rnnx check`: is the artifact still the same network?"""

from __future__ import annotations

import click

from rnnx.cli.common import as_json, talk


@click.command("check")
@click.argument("artifact", type=click.Path())
@click.option("--against", "spec", required=True, metavar="SPEC", help="The PyTorch model.")
@click.option("--weights", metavar="FILE", help="A state dict to load into the model (.pt).")
@click.option("--rtol", type=float, default=1e-4, show_default=True, help="Relative tolerance.")
@click.option("--atol", type=float, default=1e-5, show_default=True, help="Absolute tolerance.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the random inputs."
)
@click.option(
    "--report",
    "reports",
    multiple=True,
    metavar="KIND:FILE",
    help="Also write a report: text, json, junit, markdown, github or html. Repeat for more. FILE -"
    " is stdout, in place of the table.",
)
@as_json
def command(
    artifact: str,
    spec: str,
    weights: str | None,
    rtol: float,
    atol: float,
    seed: int,
    reports: tuple[str, ...],
    as_json: bool,
) -> int:
    """Prove that ARTIFACT equals the PyTorch model SPEC.

    Runs both from random states at several batches and lengths, and a streaming artifact also chunk
    by chunk through the runner. Exit code 0: equal, 1: not equal, 2: misuse.
    """
    import torch

    from rnnx.parity import check
    from rnnx.parity.reports import destination, write
    from rnnx.spec import load_model
    from rnnx_runtime.errors import SpecError

    destinations = [destination(text) for text in reports]
    loaded = load_model(spec, weights)
    if not isinstance(loaded.model, torch.nn.Module):
        raise SpecError(
            "a .pt2 program is no reference: its sizes are frozen", hint="Name the nn.Module."
        )
    talk(f"checking {artifact} against {spec}")
    report = check(artifact, loaded.model, loaded.args, rtol=rtol, atol=atol, seed=seed)
    write(report, [found for found in destinations if not found.is_stdout])
    printed = ["json"] * as_json + [found.kind for found in destinations if found.is_stdout]
    for kind in printed or ["text"]:
        click.echo(report.render(kind))
    return 0 if report.passed else 1

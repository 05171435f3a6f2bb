"""What every command shares: the options they all have, talk, and JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from rnnx_runtime import Contract

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def talk(message: str) -> None:
    """Say something to the person; never data."""
    click.echo(message, err=True)


def print_json(value: Any) -> None:
    """Print data for a program."""
    click.echo(json.dumps(value, indent=2, default=str))


def refuse_unused(context: click.Context, unused: set[str], what: str) -> None:
    """Refuse options, by their parameters' names, that `what` would ignore, where they are given.

    Raises:
        click.UsageError: one stands on the command line.
    """
    given = [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name in unused
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{what} has no use for {', '.join(given)}: leave it out.", context)


def delay_text(contract: Contract) -> str:
    """How late the outputs of a stream are: in frames and, where the rate is known, in ms."""
    if contract.sample_rate is None:
        return f"{contract.delay} frames"
    return f"{contract.delay} frames ({1000 * contract.delay / contract.sample_rate:g} ms)"


def human_bytes(count: int) -> str:
    """`1536` as `1.5 KB`, in steps of 1024."""
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"

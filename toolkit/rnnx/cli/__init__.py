"""The command line: `rnnx export | check | quantize | stream | inspect | bench | demo`.

One module for each command, imported when it is called, so that `rnnx --help` stays light. Data
goes to stdout, talk to stderr. Exit code 0: done, and equal where something was compared;
1: compared and not equal, or one of several files failed; 2: misuse or failure, with one sentence
and a hint; 141: the reader of the output has gone.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module

import click

_COMMANDS = {
    "export": "Turn a PyTorch model into an ONNX artifact.",
    "check": "Prove that an artifact equals its PyTorch model, or another artifact.",
    "quantize": "Make an artifact smaller, and measure what it costs.",
    "stream": "Run an artifact frame after frame over a file or stdin.",
    "inspect": "Show what an artifact is and takes.",
    "bench": "Measure an artifact's step time.",
    "demo": "Train, export, check, quantize and stream a real network.",
}

_BROKEN_PIPE = 141  # what a shell says of a program that SIGPIPE ends; 0 would say equal, 1 not


class _LazyGroup(click.Group):
    """Imports a command's module when the command is called, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"rnnx.cli.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rnnx", prog_name="rnnx")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Take recurrent networks from PyTorch to the edge."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if args is None else args
    sys.exit(_run(arguments, debug="--debug" in arguments))


def _run(arguments: list[str], *, debug: bool) -> int:
    try:
        result = cli.main(arguments, prog_name="rnnx", standalone_mode=False)
    except click.exceptions.Abort:
        return _fail("interrupted", None)
    except click.ClickException as error:
        error.show()
        return 2
    except SystemExit:  # click's end when the reader of our output has gone (EPIPE)
        return _BROKEN_PIPE
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _explain(error)
    return result if isinstance(result, int) else 0


def _explain(error: Exception) -> int:
    from rnnx.extras import explain
    from rnnx_runtime.errors import RnnxError

    if isinstance(error, ModuleNotFoundError):
        error = explain(error)
    if isinstance(error, RnnxError):
        return _fail(str(error), error.hint)
    if isinstance(error, OSError):
        return _fail(f"{error.strerror or error}: {error.filename!r}", None)
    return _fail(
        f"unexpected {type(error).__name__}: {error}",
        "This is a fault in rnnx. Run again with `rnnx --debug ...` and report the traceback.",
    )


def _fail(message: str, hint: str | None) -> int:
    click.echo(f"error: {message}", err=True)
    if hint:
        click.echo(f"\nhint: {hint}", err=True)
    return 2

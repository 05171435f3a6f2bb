"""`rnnx stream`: run an artifact over files, stdin or the microphone, results as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rnnx.cli.common import as_json, refuse_unused, talk

if TYPE_CHECKING:
    from rnnx.sources import Feeds, Source
    from rnnx_runtime import Stream

_FORMATS = ("csv", "jsonl", "u8", "s16le", "s24le", "s32le", "f32le")


@click.command("stream")
@click.argument("model", type=click.Path(dir_okay=False))
@click.option(
    "--input",
    "path",
    required=True,
    help="A file (.wav, .flac, .ogg, .csv, .jsonl, .npy, .npz), a folder of them, - for stdin, or"
    " mic for the microphone.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(_FORMATS),
    help="What the input holds, where no suffix tells; stdin holds CSV. u8 to f32le are raw"
    " samples.",
)
@click.option(
    "--rate",
    type=float,
    help="Frames per second of an input that does not tell.",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Frames to feed at a time; more are cheaper and come later.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(),
    help="The file to write instead of stdout; for a folder, a folder.",
)
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False),
    help="A file from which the same command goes on where it was killed; needs -o.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Frames from one checkpoint to the next.",
)
@click.option(
    "--realtime",
    is_flag=True,
    help="Feed a file as if it came live, and tell how late the results were.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse NaN and infinity, which the network may turn into ordinary numbers.",
)
@as_json
@click.pass_context
def command(context: click.Context, /, model: str, **options: Any) -> int:
    """Run MODEL frame after frame, its states carried, and write a line for each output frame.

    Of a folder, every file is a sequence of its own; the exit code is 1 where one could not be run.

    \b
    Examples:
        rnnx stream model.onnx --input data.csv --chunk 16 -o results.csv
        sensor | rnnx stream model.onnx --input - --json
        arecord -t raw -f S16_LE -r 16000 | rnnx stream model.onnx --input - --format s16le
        rnnx stream model.onnx --input week.npy -o week.csv --checkpoint week.state
    """
    from rnnx.feeding import Plan, run, run_folder
    from rnnx_runtime import Model

    plan = Plan(**options)
    if plan.checkpoint is None:
        refuse_unused(context, {"every"}, "a run without --checkpoint")
    watch = partial(_with_progress, rows_on_stdout=plan.output is None)
    if not Path(plan.path).is_dir():
        run(Model(model), plan, talk, watch)
        return 0
    failed = run_folder(Model(model), plan, talk, watch)
    if failed:
        talk(f"{len(failed)} could not be run: {', '.join(failed)}")
    return 1 if failed else 0


def _with_progress(
    chunks: Iterator[Feeds], source: Source, stream: Stream, *, rows_on_stdout: bool
) -> Iterator[Feeds]:
    """The chunks, with a bar on a terminal, unless rows are written there too."""
    in_the_way = rows_on_stdout and sys.stdout.isatty()
    if source.frames is None or in_the_way or not sys.stderr.isatty():
        yield from chunks
        return
    with click.progressbar(length=source.frames, file=sys.stderr, label="frames") as bar:
        for feeds in chunks:
            yield feeds
            bar.update(stream.position - bar.pos)

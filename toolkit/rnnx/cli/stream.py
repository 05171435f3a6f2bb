"""`rnnx stream`: run an artifact over a file or stdin, results as they come."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click

from rnnx.cli.common import as_json, talk

if TYPE_CHECKING:
    from rnnx.sources import Feeds, Source
    from rnnx_runtime import Stream


@click.command("stream")
@click.argument("model", type=click.Path(dir_okay=False))
@click.option(
    "--input",
    "path",
    required=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
    help="A .wav, .csv, .npy or .npz file (arrays by input name), or - for CSV from stdin.",
)
@click.option(
    "--chunk",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Frames to feed at a time; more are cheaper and come later.",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="The file to write instead of stdout."
)
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse NaN and infinity, which the network may turn into ordinary numbers.",
)
@as_json
def command(
    model: str, path: str, chunk: int, output: str | None, strict: bool, as_json: bool
) -> None:
    """Run MODEL frame after frame, its states carried, and write a line for each output frame.

    \b
    Examples:
        rnnx stream model.onnx --input data.csv --chunk 16 -o results.csv
        sensor | rnnx stream model.onnx --input - --json
    """
    from rnnx.sinks import Sink
    from rnnx.sources import open_source
    from rnnx_runtime import Stream

    stream = Stream(model, strict=strict)
    source = open_source(path, stream.model.contract, chunk=chunk)
    with _destination(output) as file:
        sink = Sink(file, stream.model.contract, as_json=as_json)
        for feeds in _with_progress(source, stream, rows_on_stdout=output is None):
            sink.write(stream.feed(feeds), stream.position)
        tail = stream.flush()
        if stream.delay:
            sink.write(tail, stream.position, last=True)
    talk(f"{stream.position} frames in, {sink.rows} rows out, delay {stream.delay} frames")


@contextmanager
def _destination(output: str | None) -> Iterator[TextIO]:
    """Stdout, or a file that appears when it is whole."""
    from rnnx_runtime.files import replacing

    if output is None:
        yield sys.stdout
        return
    with replacing(output) as beside, open(beside, "w", encoding="utf-8") as file:
        yield file


def _with_progress(source: Source, stream: Stream, *, rows_on_stdout: bool) -> Iterator[Feeds]:
    """The chunks, with a bar on a terminal, unless rows are written there too."""
    in_the_way = rows_on_stdout and sys.stdout.isatty()
    if source.frames is None or in_the_way or not sys.stderr.isatty():
        yield from source.chunks(stream.position)
        return
    with click.progressbar(length=source.frames, file=sys.stderr, label="frames") as bar:
        for feeds in source.chunks(stream.position):
            yield feeds
            bar.update(stream.position - bar.pos)

"""Runs an artifact over a source into a file: what `rnnx stream` was asked, carried out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from rnnx import checkpoint
from rnnx.checkpoint import Checkpoint
from rnnx.kept_file import KeptFile
from rnnx.pacing import Pace
from rnnx.sinks import Sink
from rnnx.sources import SUFFIXES, Feeds, Source, open_source
from rnnx_runtime import Model, Stream
from rnnx_runtime.errors import InputError, RnnxError
from rnnx_runtime.files import refuse_overwriting, replacing, sha256_of_file, writable

Watch = Callable[[Iterator[Feeds], Source, Stream], Iterator[Feeds]]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run.

    Attributes:
        path: the input: a file, `-` or `mic`.
        output: the file for the results; None is stdout.
        chunk: frames fed at a time.
        form: the input's format; None goes by its suffix.
        rate: the input's frames per second, where it does not tell.
        as_json: JSON lines; else CSV.
        strict: refuse NaN and infinity.
        realtime: feed a file as if it came live, and tell how late the results are.
        checkpoint: the file from which a killed run goes on.
        every: frames from one checkpoint to the next.
    """

    path: str
    output: str | None = None
    chunk: int = 1
    form: str | None = None
    rate: float | None = None
    as_json: bool = False
    strict: bool = False
    realtime: bool = False
    checkpoint: str | None = None
    every: int = 10_000


def run(model: Model, plan: Plan, tell: Tell, watch: Watch) -> None:
    """Feed the input from its first frame, or from the last checkpoint, to its end.

    Args:
        model: the artifact.
        plan: what is asked.
        tell: takes what a person should know.
        watch: takes the chunks, and gives them on as they are fed.

    Raises:
        InputError: the input or the plan does not fit.
        StreamError: the checkpoint is damaged or of another run, or the output was changed.
    """
    if plan.output is not None:
        refuse_overwriting(plan.output, model.path, plan.path)
    stream = Stream(model, strict=plan.strict)
    source = open_source(
        plan.path, model.contract, chunk=plan.chunk, form=plan.form, rate=plan.rate
    )
    if plan.checkpoint is not None:
        _run_kept(stream, source, plan, tell, watch)
        return
    pace = _pace(model, source, plan)
    with _destination(plan.output) as file:
        sink = Sink(file, model.contract, as_json=plan.as_json, rate=source.rate)
        if source.live:
            sink.begin()  # who feeds it may wait for the header; a file is looked at first
        chunks = source.chunks(0)
        if pace is not None:
            chunks = pace.held_back(chunks)
        _feed(stream, watch(chunks, source, stream), sink)
        if pace is not None and plan.as_json:
            file.write(json.dumps({"realtime": asdict(pace.lateness())}) + "\n")
    _tell_all(stream, source, sink, tell)
    if pace is not None:
        tell(str(pace.lateness()))


def run_folder(model: Model, plan: Plan, tell: Tell, watch: Watch) -> list[str]:
    """Run every file of the folder `plan.path` as a sequence of its own, into a file of the folder
    `plan.output`, named after it.

    Returns:
        The names of the files that could not be run, which is told of each.

    Raises:
        InputError: no folder is given for the results, or there is no file to run.
    """
    if plan.output is None or plan.checkpoint is not None:
        raise InputError(
            f"{plan.path!r} is a folder, whose files are run one by one",
            hint="Give a folder for the results with -o, and no --checkpoint.",
        )
    paths = sorted(path for path in Path(plan.path).iterdir() if _is_data(path, plan.form))
    if not paths:
        raise InputError(f"{plan.path!r} holds no file of {', '.join(SUFFIXES)}")
    refuse_overwriting(plan.output, plan.path)
    Path(plan.output).mkdir(exist_ok=True)
    return [path.name for path in paths if not _run_of_many(model, plan, path, tell, watch)]


def _is_data(path: Path, form: str | None) -> bool:
    named = form is not None or path.suffix.lower() in SUFFIXES
    return named and path.is_file() and not path.name.startswith(".")


def _run_of_many(model: Model, plan: Plan, path: Path, tell: Tell, watch: Watch) -> bool:
    """Whether the file could be run."""
    name = f"{path.name}.{'jsonl' if plan.as_json else 'csv'}"
    one = replace(plan, path=str(path), output=str(Path(plan.output or "", name)))
    try:
        run(model, one, lambda text: tell(f"{path.name}: {text}"), watch)
    except (RnnxError, OSError) as error:
        hint = getattr(error, "hint", None)
        tell(f"error: {path.name}: {error}" + (f" ({hint})" if hint else ""))
        return False
    return True


def _run_kept(stream: Stream, source: Source, plan: Plan, tell: Tell, watch: Watch) -> None:
    """Run from the last checkpoint on, and leave others."""
    output, kept_at = _kept_paths(stream, plan)
    identity = _identity(stream, source, plan)
    before = _restored(stream, kept_at, identity)
    if before is not None:
        tell(_story(before, source, kept_at))
    if before is not None and before.finished:
        return
    record, memory = (None, None) if before is None else (before.output, before.sink)
    with KeptFile(output, record) as file:
        contract, as_json, rate = stream.model.contract, plan.as_json, source.rate
        sink = Sink(file, contract, as_json=as_json, rate=rate, memory=memory)

        def save(*, finished: bool = False) -> None:
            record = file.sync()  # first: a checkpoint never tells of rows that are not there
            Checkpoint(
                identity, stream.position, record, sink.memory(), finished, stream.snapshot()
            ).save(kept_at)

        chunks = _saved(source.chunks(stream.position), stream, plan.every, save)
        _feed(stream, watch(chunks, source, stream), sink)
        save(finished=True)
    _tell_all(stream, source, sink, tell)


def _restored(stream: Stream, kept_at: str, identity: dict[str, Any]) -> Checkpoint | None:
    """The last checkpoint, if there is one, with the stream where it was then."""
    before = checkpoint.load(kept_at)
    if before is not None:
        before.hold(kept_at, identity)
        stream.restore(before.snapshot)
    return before


def _kept_paths(stream: Stream, plan: Plan) -> tuple[str, str]:
    """The output and the checkpoint, where both may be written."""
    if plan.output is None or plan.checkpoint is None or plan.realtime:
        raise InputError(
            "a run with checkpoints writes its results into a file, as fast as it can",
            hint="Give the file with -o, and no --realtime.",
        )
    beside = f"{plan.checkpoint}.new"
    paths = [stream.model.path, plan.path, plan.output, plan.checkpoint, beside]
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise InputError(f"of {', '.join(map(repr, paths))} one would be written over another")
    return str(writable(plan.output)), str(writable(plan.checkpoint))


def _identity(stream: Stream, source: Source, plan: Plan) -> dict[str, Any]:
    """What must be the same for a run to go on, by the name that a person knows it by."""
    return {
        "the artifact": stream.model.contract.fingerprint,
        "the input": plan.path if source.live else sha256_of_file(plan.path),
        "--chunk": plan.chunk,
        "--format": plan.form,
        "--json": plan.as_json,
        "the rate": source.rate,
    }


def _story(before: Checkpoint, source: Source, path: str) -> str:
    if before.finished:
        rows = before.sink["rows"]
        return (
            f"this run has ended before: {before.frames} frames in, {rows} rows out."
            f" Remove {path} to run it again"
        )
    seconds = "" if source.rate is None else f" ({before.frames / source.rate:.3f} s)"
    feed_on = ", which the input must begin with" if source.live else ""
    return f"going on with frame {before.frames}{seconds}{feed_on}"


def _saved(
    chunks: Iterator[Feeds], stream: Stream, every: int, save: Callable[[], None]
) -> Iterator[Feeds]:
    """The chunks, with a checkpoint after at least so many frames."""
    last = stream.position
    for feeds in chunks:
        yield feeds
        if stream.position - last >= every:
            save()
            last = stream.position


def _feed(stream: Stream, chunks: Iterator[Feeds], sink: Sink) -> None:
    for feeds in chunks:
        sink.write(stream.feed(feeds), stream.position)
    sink.write(stream.flush(), stream.position, last=True)


def _pace(model: Model, source: Source, plan: Plan) -> Pace | None:
    if not plan.realtime:
        return None
    if source.live:
        raise InputError(f"{plan.path!r} is live as it is", hint="Leave --realtime out.")
    if source.rate is None:
        raise InputError(
            "nothing tells how many frames a second are real time",
            hint="Say so: --rate 100, or give the model an attribute sample_rate and export it.",
        )
    return Pace(model.contract, source.rate)


def _tell_all(stream: Stream, source: Source, sink: Sink, tell: Tell) -> None:
    for note in source.notes:
        tell(note)
    tell(f"{stream.position} frames in, {sink.rows} rows out, delay {stream.delay} frames")


@contextmanager
def _destination(output: str | None) -> Iterator[TextIO]:
    """Stdout, or a file that appears when it is whole."""
    if output is None:
        yield sys.stdout
        return
    with replacing(output) as beside, open(beside, "w", encoding="utf-8", newline="") as file:
        yield file

"""What `rnnx stream` feeds: files, stdin and the microphone, chunk by chunk, as the inputs ask.

Nothing is read before it is needed, so a file may be longer than memory and stdin may be live.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx import audio
from rnnx.array_source import open_npy, open_npz
from rnnx.csv_source import csv_blocks
from rnnx.json_source import json_blocks
from rnnx.layout import block_to_port, cast, frame_shape, only_input, to_port
from rnnx.lines import count_lines
from rnnx.microphone import open_microphone
from rnnx.pcm import WIDTHS, open_pcm
from rnnx.wav_source import open_sound, open_wav
from rnnx_runtime.chunks import cut
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import InputError
from rnnx_runtime.model import size_along

Feeds = dict[str, npt.NDArray[Any]]

# Not .mp3: libsndfile gives other last bits when it reads the same file again.
_SOUNDS = (".flac", ".ogg", ".opus", ".aiff", ".aif", ".au", ".caf", ".w64")
SUFFIXES = (".wav", ".csv", ".npy", ".npz", ".jsonl", *_SOUNDS)
FORMATS = ("csv", "jsonl", *WIDTHS)


@dataclass(frozen=True, slots=True)
class Source:
    """What a stream is fed.

    Attributes:
        frames: how many there are, at most; None where only the end tells.
        chunks: from a frame on, arrays by input name, of the inputs' dtypes and layouts, batch 1.
            Where a source is live, it goes on from where it is.
        rate: frames per second; None where nobody told.
        live: it comes as it comes, and cannot be read again.
        notes: what was done to the input that its owner should know; more may come at the end.
    """

    frames: int | None
    chunks: Callable[[int], Iterator[Feeds]]
    rate: float | None = None
    live: bool = False
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a source is to be opened for."""

    path: str
    contract: Contract
    chunk: int
    kind: str
    rate: float | None


def open_source(
    path: str,
    contract: Contract,
    *,
    chunk: int,
    form: str | None = None,
    rate: float | None = None,
) -> Source:
    """Read `path` in chunks of `chunk` frames; the last may be shorter.

    Args:
        path: a file of one of `SUFFIXES`; `-` is stdin, `mic` the microphone.
        contract: of the artifact that is fed.
        chunk: frames.
        form: one of `FORMATS`, whatever the suffix says; CSV where stdin says nothing.
        rate: frames per second, where the input does not tell.

    Raises:
        InputError: it is none of these, is damaged, or does not fit the artifact's inputs. Faults
            inside the data are raised from `chunks`.
        MissingExtraError: it takes a package that is not installed.
    """
    if rate is not None and not 0 < rate < math.inf:
        raise InputError(f"a rate of {rate:g} frames a second is none")
    kind = form or ("csv" if path == "-" else Path(path).suffix.lower().removeprefix("."))
    asked = _Asked(path, contract, chunk, kind, rate)
    if path == "mic":
        return _open_microphone(asked)
    if path != "-" and not Path(path).exists():
        raise InputError(
            f"{path!r} does not exist",
            hint="Check the path. - reads stdin, and mic the microphone.",
        )
    if kind not in _READERS:
        raise InputError(
            f"{path!r} is none of {', '.join(SUFFIXES)}",
            hint=f"Convert it, or say what is in it: --format {'|'.join(FORMATS)}",
        )
    return _READERS[kind](asked)


def _open_csv(asked: _Asked) -> Source:
    return _rows(asked, csv_blocks)


def _open_json(asked: _Asked) -> Source:
    return _rows(asked, json_blocks)


def _rows(
    asked: _Asked,
    read: Callable[[str, Sequence[Port], int, int], Iterator[Feeds]],
) -> Source:
    ports = asked.contract.inputs
    if any(port.stride != ports[0].stride for port in ports if port.time_axis is not None):
        raise InputError(
            f"the inputs come at several rates, but {asked.path!r} holds one row for all",
            hint="Give an .npz file of arrays by input name.",
        )
    frames = count_lines(asked.path)

    def chunks(start: int) -> Iterator[Feeds]:
        blocks = read(asked.path, ports, asked.chunk, 0 if frames is None else start)
        return ({p.name: block_to_port(p, block[p.name]) for p in ports} for block in blocks)

    return Source(frames, chunks, _only_rate(asked), live=frames is None)


def _open_npy(asked: _Asked) -> Source:
    return _sliced(asked, open_npy(asked.path, only_input(asked.contract, asked.path)))


def _open_npz(asked: _Asked) -> Source:
    return _sliced(asked, open_npz(asked.path, asked.contract.inputs))


def _sliced(asked: _Asked, feeds: Feeds) -> Source:
    ports, chunk = asked.contract.inputs, asked.chunk
    multiple = math.lcm(*(port.stride.numerator for port in ports))
    if chunk % multiple:
        raise InputError(
            f"a chunk of {chunk} frames is no whole number of frames of every input",
            hint=f"Give a multiple of {multiple}: --chunk {multiple}",
        )
    frames = size_along(asked.contract, feeds, "time") or 0

    def chunks(start: int) -> Iterator[Feeds]:
        for first in range(start, frames, chunk):
            parts = cut(ports, feeds, first, first + chunk)
            yield {port.name: cast(port, parts[port.name], asked.path) for port in ports}

    return Source(frames, chunks, _only_rate(asked))


def _only_rate(asked: _Asked) -> float | None:
    """The rate of what is no audio, which is not resampled."""
    taken = asked.contract.sample_rate
    if taken is not None and asked.rate not in (None, taken):
        raise InputError(
            f"the artifact takes {taken:g} frames a second, not {asked.rate:g}",
            hint="Only audio is resampled. Leave --rate out.",
        )
    return taken or asked.rate


def _open_wav(asked: _Asked) -> Source:
    return _of_file(asked, open_wav(asked.path))


def _open_sound(asked: _Asked) -> Source:
    return _of_file(asked, open_sound(asked.path))


def _of_file(asked: _Asked, opened: audio.Audio) -> Source:
    if not opened.rate:
        raise InputError(f"{asked.path!r} says that it has no frames a second")
    if asked.rate not in (None, opened.rate):
        raise InputError(
            f"{asked.path!r} has {opened.rate:g} frames a second, not {asked.rate:g}",
            hint="Leave --rate out: the file tells its own.",
        )
    return _heard(asked, opened, [])


def _open_pcm(asked: _Asked) -> Source:
    rate = asked.rate or asked.contract.sample_rate
    opened = open_pcm(
        asked.path, asked.kind, channels=_width(asked), rate=rate, block=_block(asked, rate)
    )
    return _heard(asked, opened, [])


def _open_microphone(asked: _Asked) -> Source:
    rate, notes = asked.rate or asked.contract.sample_rate, list[str]()
    block = _block(asked, rate)
    opened = open_microphone(channels=_width(asked), rate=rate, block=block, notes=notes)
    return _heard(asked, opened, notes)


def _heard(asked: _Asked, opened: audio.Audio, notes: list[str]) -> Source:
    port = only_input(asked.contract, asked.path)
    mixed = audio.mixed(opened, port)
    if mixed.channels != opened.channels:
        notes.append(f"{opened.channels} channels averaged")
    fit = audio.resampled(mixed, asked.contract.sample_rate)
    if fit.rate != opened.rate:
        notes.append(f"resampled from {opened.rate:g} to {fit.rate:g} frames a second")
    _refuse_kind(port, asked.path)

    def chunks(start: int) -> Iterator[Feeds]:
        blocks = audio.to_frames(fit, port, asked.chunk, start)
        return ({port.name: to_port(port, block)} for block in blocks)

    return Source(fit.frames, chunks, fit.rate, fit.live, notes)


def _width(asked: _Asked) -> int:
    return math.prod(frame_shape(only_input(asked.contract, asked.path)))


def _block(asked: _Asked, rate: float | None) -> int:
    """The live frames that make one chunk."""
    taken = asked.contract.sample_rate
    if rate is None or taken is None:
        return asked.chunk
    return math.ceil(asked.chunk * rate / taken)


def _refuse_kind(port: Port, path: str) -> None:
    """Refuse audio for an input of whole numbers before anything is written."""
    cast(port, np.zeros(0, np.float32), path)


_READERS: dict[str, Callable[[_Asked], Source]] = {
    "csv": _open_csv,
    "jsonl": _open_json,
    "npy": _open_npy,
    "npz": _open_npz,
    **dict.fromkeys((suffix[1:] for suffix in _SOUNDS), _open_sound),
    **dict.fromkeys(WIDTHS, _open_pcm),
    "wav": _open_wav,
}

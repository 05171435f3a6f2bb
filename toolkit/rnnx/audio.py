"""Audio as a source: whoever reads it, it is mixed, resampled and cut as the artifact asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.extras import load
from rnnx.layout import cast, frame_shape
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]

# Frames that a file is read in: what is dropped to reach a place is dropped in few steps.
FILE_BLOCK = 1 << 14

_MOST_TIMES = 256  # soxr crashes somewhere above


@dataclass(frozen=True, slots=True)
class Audio:
    """Frames of a few channels, float32, PCM scaled to [-1, 1).

    Attributes:
        name: where they come from, for errors.
        channels: values in a frame.
        rate: frames per second; None where nobody told.
        frames: how many; None where only the end tells.
        blocks: arrays `[frames, channels]` of any length, from a frame on.
        live: they come as they come, and never again.
    """

    name: str
    channels: int
    rate: float | None
    frames: int | None
    blocks: Callable[[int], Iterator[Array]]
    live: bool = False


def mixed(audio: Audio, port: Port) -> Audio:
    """The channels as the values of a frame of `port`; averaged where it takes one value.

    Raises:
        InputError: they are neither as many as the values, nor is there one value.
    """
    width = math.prod(frame_shape(port))
    if audio.channels == width:
        return audio
    if width != 1:
        raise InputError(
            f"{audio.name!r} has {audio.channels} channels, but input {port} takes {width} values"
            " a frame",
            hint="Where the artifact takes features of audio, compute them and give .npy or .csv.",
        )

    def blocks(start: int) -> Iterator[Array]:
        return (block.mean(1, keepdims=True) for block in audio.blocks(start))

    return Audio(audio.name, 1, audio.rate, audio.frames, blocks, audio.live)


def resampled(audio: Audio, rate: float | None) -> Audio:
    """The audio at `rate` frames per second, where that and its own rate are known.

    The filter remembers, and cannot be put to a place: to begin anywhere but at the start, all
    before is resampled again and dropped, so that the frames are the same to the last bit.

    Raises:
        MissingExtraError: soxr is not installed.
        InputError: one rate is a great many times the other.
    """
    if audio.rate is None or rate is None or audio.rate == rate:
        return audio
    before = audio.rate
    if max(before, rate) > _MOST_TIMES * min(before, rate):
        raise InputError(
            f"{audio.name!r} cannot be resampled from {before:g} to {rate:g} frames a second",
            hint="One of the two is hardly the rate of this sound.",
        )
    soxr = load("soxr", f"resampling {audio.name!r} from {before:g} to {rate:g} frames a second")

    def filtered() -> Iterator[Array]:
        stream = soxr.ResampleStream(before, rate, audio.channels, dtype="float32")
        for block in audio.blocks(0):
            yield stream.resample_chunk(np.ascontiguousarray(block))
        yield stream.resample_chunk(np.zeros((0, audio.channels), np.float32), last=True)

    def blocks(start: int) -> Iterator[Array]:
        return filtered() if audio.live else without_first(filtered(), start)

    frames = None if audio.frames is None else math.ceil(audio.frames * rate / before)
    return Audio(audio.name, audio.channels, rate, frames, blocks, audio.live)


def in_chunks(blocks: Iterable[Array], chunk: int) -> Iterator[Array]:
    """The same frames in arrays of `chunk`; the last may be shorter."""
    held: list[Array] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) < chunk:
            continue
        row = np.concatenate(held)
        whole = len(row) - len(row) % chunk
        yield from (row[first : first + chunk] for first in range(0, whole, chunk))
        held = [row[whole:]]
    if any(map(len, held)):
        yield np.concatenate(held)


def without_first(blocks: Iterable[Array], frames: int) -> Iterator[Array]:
    """The blocks without their first so many frames."""
    for block in blocks:
        kept = block[frames:]
        frames = max(0, frames - len(block))
        if len(kept):
            yield kept


def to_frames(audio: Audio, port: Port, chunk: int, start: int) -> Iterator[Array]:
    """Arrays `[chunk, ...]` in the dtype and with the frame shape of `port`."""
    shape = (-1, *frame_shape(port))
    for block in in_chunks(audio.blocks(start), chunk):
        yield cast(port, block, audio.name).reshape(shape)

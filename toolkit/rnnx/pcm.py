"""Raw PCM, little-endian: from a file, or from stdin as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rnnx.audio import FILE_BLOCK, Audio
from rnnx.interrupts import until_interrupted
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]

# As ffmpeg names them.
WIDTHS = {"u8": 1, "s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4}


def open_pcm(path: str, form: str, *, channels: int, rate: float | None, block: int) -> Audio:
    """Samples without a header.

    Args:
        path: a file; `-` is stdin.
        form: one of `WIDTHS`.
        channels: samples in a frame, one after another.
        rate: frames per second.
        block: frames to wait for, where they are live.
    """
    live = not Path(path).is_file()
    size = channels * WIDTHS[form]

    def blocks(start: int) -> Iterator[Array]:
        if live:
            return until_interrupted(_blocks(path, form, channels, 0, block * size))
        return _blocks(path, form, channels, start * size, FILE_BLOCK * size)

    count = None if live else Path(path).stat().st_size // size
    return Audio("stdin" if path == "-" else path, channels, rate, count, blocks, live)


def samples(data: bytes, width: int) -> Array:
    """PCM of `width` bytes as float32, put into the top of an int32 so that all scale alike."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, width)
    if width == 1:
        raw = raw ^ np.uint8(0x80)  # 8-bit PCM is unsigned, around 128
    padded = np.zeros((len(raw), 4), np.uint8)
    padded[:, 4 - width :] = raw
    return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)


def _blocks(path: str, form: str, channels: int, before: int, size: int) -> Iterator[Array]:
    with _opened(path) as file:
        if before:
            file.seek(before)
        while data := file.read(size):
            left = len(data) % (channels * WIDTHS[form])
            yield _decoded(data[: len(data) - left], form).reshape(-1, channels)
            if left:
                raise InputError(
                    f"{path!r} ends within a frame: {left} bytes are left over",
                    hint=f"A frame of {form} takes {channels * WIDTHS[form]} bytes here.",
                )


def _decoded(data: bytes, form: str) -> Array:
    if form == "f32le":
        return np.frombuffer(data, "<f4").astype(np.float32)
    return samples(data, WIDTHS[form])


def _opened(path: str) -> Any:
    stdin: BinaryIO = sys.stdin.buffer
    return nullcontext(stdin) if path == "-" else open(path, "rb")

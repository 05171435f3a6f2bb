"""PCM WAV files as blocks of frames, float32 in [-1, 1]."""

from __future__ import annotations

import math
import wave
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.layout import frame_shape
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError

_TO_PCM = "Convert it to PCM: ffmpeg -i in.wav -c:a pcm_s16le out.wav"


def wav_frames(path: str, port: Port, sample_rate: float | None) -> int:
    """The number of frames in the file, whose channels are to be the values of a frame of `port`.

    Raises:
        InputError: it is not PCM of 8 to 32 bits, or its channels or sample rate do not fit.
    """
    try:
        with wave.open(path, "rb") as file:
            form = file.getparams()
    except (wave.Error, EOFError) as error:
        raise InputError(f"{path!r} is not a PCM WAV: {error}", hint=_TO_PCM) from error
    if form.sampwidth > 4:
        raise InputError(f"{path!r} has samples of {8 * form.sampwidth} bits", hint=_TO_PCM)
    _refuse_unfit(path, form.nchannels, form.framerate, port, sample_rate)
    return form.nframes


def wav_blocks(path: str, chunk: int) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks `[frames, channels]` of at most `chunk` frames.

    Raises:
        InputError: the file ends before the frames that its header announces.
    """
    with wave.open(path, "rb") as file:
        width, channels, left = file.getsampwidth(), file.getnchannels(), file.getnframes()
        while left:
            expected = min(chunk, left)
            data = file.readframes(expected)
            if len(data) != expected * channels * width:
                raise InputError(
                    f"{path!r} is cut off: its header announces {file.getnframes()} frames,"
                    f" it ends after {file.getnframes() - left + len(data) // (channels * width)}"
                )
            left -= expected
            yield _samples(data, width).reshape(-1, channels)


def _refuse_unfit(
    path: str, channels: int, rate: int, port: Port, sample_rate: float | None
) -> None:
    width = math.prod(frame_shape(port))
    if channels != width:
        raise InputError(
            f"{path!r} has {channels} channels, but input {port} takes {width} values a frame",
            hint="Where the artifact takes features of audio, compute them and give .npy or .csv.",
        )
    if sample_rate is not None and rate != sample_rate:
        raise InputError(
            f"{path!r} has {rate} frames a second, but the artifact takes {sample_rate:g}",
            hint=f"Resample it: ffmpeg -i in.wav -ar {sample_rate:g} out.wav",
        )


def _samples(data: bytes, width: int) -> npt.NDArray[Any]:
    """Little-endian PCM of `width` bytes, put into the top of an int32 so that all scale alike."""
    raw = np.frombuffer(data, np.uint8).reshape(-1, width)
    if width == 1:
        raw = raw ^ np.uint8(0x80)  # 8-bit WAV is unsigned, around 128
    padded = np.zeros((len(raw), 4), np.uint8)
    padded[:, 4 - width :] = raw
    return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)

"""Sound: PCM WAV by the standard library, every other file by soundfile."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

from rnnx.audio import FILE_BLOCK, Audio, without_first
from rnnx.extras import load
from rnnx.pcm import samples
from rnnx_runtime.errors import InputError

Array = npt.NDArray[Any]


def open_wav(path: str) -> Audio:
    """A WAV file; one that is not PCM of 8 to 32 bits is left to `open_sound`.

    Raises:
        InputError: it is damaged. That it ends too early is raised from its blocks.
        MissingExtraError: it is not PCM, and soundfile is not installed.
    """
    try:
        with wave.open(path, "rb") as file:
            form = file.getparams()
    except (wave.Error, EOFError, RuntimeError):  # the last from chunks of false lengths
        return open_sound(path)
    if form.sampwidth > 4:
        return open_sound(path)

    def blocks(start: int) -> Iterator[Array]:
        return _wav_blocks(path, start)

    return Audio(path, form.nchannels, form.framerate, form.nframes, blocks)


def open_sound(path: str) -> Audio:
    """Any file that libsndfile reads.

    Raises:
        InputError: it cannot. Damage behind the header is raised from its blocks, where
            libsndfile sees it: some files that are cut off merely seem shorter to it.
        MissingExtraError: soundfile is not installed.
    """
    soundfile = load("soundfile", f"reading {path!r}, which is no PCM WAV,")
    try:
        form = soundfile.info(path)
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"{path!r} is not a sound file that can be read: {error.error_string}",
            hint="Convert it: ffmpeg -i in.wav -c:a pcm_s16le out.wav",
        ) from error

    def blocks(start: int) -> Iterator[Array]:
        # Read again, not sought: what a lossy decoder gives depends on where it began.
        return without_first(_sound_blocks(soundfile, path), start)

    return Audio(path, form.channels, form.samplerate, form.frames, blocks)


def _wav_blocks(path: str, start: int) -> Iterator[Array]:
    with wave.open(path, "rb") as file:
        width, channels, frames = file.getsampwidth(), file.getnchannels(), file.getnframes()
        file.setpos(start)
        done = start
        while done < frames:
            data = file.readframes(FILE_BLOCK)
            whole = len(data) - len(data) % (channels * width)
            done += whole // (channels * width)
            yield samples(data[:whole], width).reshape(-1, channels)
            if done < frames and whole < FILE_BLOCK * channels * width:
                raise InputError(
                    f"{path!r} is cut off: its header announces {frames} frames, it ends after"
                    f" {done}"
                )


def _sound_blocks(soundfile: Any, path: str) -> Iterator[Array]:
    with soundfile.SoundFile(path) as file:
        try:
            yield from file.blocks(FILE_BLOCK, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(
                f"{path!r} is damaged or cut off: {error.error_string} (of {file.frames} frames,"
                f" in the {FILE_BLOCK} before frame {file.tell()})"
            ) from error

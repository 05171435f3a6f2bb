"""The microphone, through sounddevice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

from rnnx.audio import Audio
from rnnx.extras import load
from rnnx.interrupts import until_interrupted
from rnnx_runtime.errors import InputError


def open_microphone(*, channels: int, rate: float | None, block: int, notes: list[str]) -> Audio:
    """The system's default input, until it is interrupted.

    Args:
        channels: to record.
        rate: frames per second.
        block: frames to wait for.
        notes: where it is told, at the end, how often frames were lost.

    Raises:
        InputError: there is no such device, or it does not take this rate.
        MissingExtraError: sounddevice is not installed.
    """
    sounddevice = _sounddevice()
    if rate is None:
        raise InputError(
            "the artifact does not tell how many frames a second the microphone is to record",
            hint="Say so: --rate 16000",
        )
    settings = {"samplerate": rate, "channels": channels, "dtype": "float32"}
    try:
        sounddevice.check_input_settings(**settings)
    except (ValueError, sounddevice.PortAudioError) as error:
        raise InputError(
            f"the microphone cannot record {channels} channels at {rate:g} frames a second:"
            f" {error}",
            hint="Give a rate that it can record with --rate; it is resampled.",
        ) from error

    def blocks(start: int) -> Iterator[npt.NDArray[Any]]:
        return until_interrupted(_recorded(sounddevice, settings, block, notes))

    return Audio("mic", channels, rate, None, blocks, live=True)


def _sounddevice() -> Any:
    try:
        return load("sounddevice", "recording")
    except OSError as error:
        raise InputError(
            f"sounddevice cannot be loaded: {error}",
            hint="Install PortAudio: apt install libportaudio2",
        ) from error


def _recorded(
    sounddevice: Any, settings: dict[str, Any], block: int, notes: list[str]
) -> Iterator[npt.NDArray[Any]]:
    lost = 0
    try:
        with sounddevice.InputStream(**settings) as stream:
            while True:
                data, overflowed = stream.read(block)
                lost += bool(overflowed)
                yield data
    finally:
        if lost:
            notes.append(f"the microphone lost frames {lost} times: the network is too slow for it")

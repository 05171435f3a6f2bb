"""What `rnnx stream` feeds: WAV, CSV and NumPy files, chunk by chunk, laid out as the inputs ask.

Nothing is read before it is needed, so a file may be longer than memory and stdin may be live.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnx.csv_source import count_lines, csv_blocks
from rnnx.layout import cast, frame_shape, to_port
from rnnx.wav_source import wav_blocks, wav_frames
from rnnx_runtime.contract import Contract, Port
from rnnx_runtime.errors import InputError
from rnnx_runtime.model import size_along

Array = npt.NDArray[Any]
Feeds = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Source:
    """What a stream is fed.

    Attributes:
        frames: how many there are, at most; None where only the end tells.
        chunks: arrays by input name, of the inputs' dtypes and layouts, batch 1.
    """

    frames: int | None
    chunks: Iterator[Feeds]


def open_source(path: str, contract: Contract, *, chunk: int) -> Source:
    """Read `path` (`-`: CSV from stdin) in chunks of `chunk` frames; the last may be shorter.

    Raises:
        InputError: it is none of .wav, .csv, .npy and .npz, is damaged, or does not fit the
            artifact's inputs. Faults inside CSV and WAV data are raised from `chunks`.
    """
    suffix = ".csv" if path == "-" else Path(path).suffix.lower()
    if suffix not in _READERS:
        raise InputError(
            f"{path!r} is none of {', '.join(_READERS)}",
            hint="Convert it, or pipe rows of comma-separated numbers into --input -.",
        )
    return _READERS[suffix](path, contract, chunk)


def _open_csv(path: str, contract: Contract, chunk: int) -> Source:
    port = _only_input(contract, path)
    blocks = csv_blocks(path, port, chunk)
    return Source(count_lines(path), ({port.name: to_port(port, block)} for block in blocks))


def _open_wav(path: str, contract: Contract, chunk: int) -> Source:
    port = _only_input(contract, path)
    frames = wav_frames(path, port, contract.sample_rate)
    shape = (-1, *frame_shape(port))
    blocks = (cast(port, block, path).reshape(shape) for block in wav_blocks(path, chunk))
    return Source(frames, ({port.name: to_port(port, block)} for block in blocks))


def _open_npy(path: str, contract: Contract, chunk: int) -> Source:
    name = _only_input(contract, path).name
    with _refusing_damage(path):
        arrays = {name: np.lib.format.open_memmap(path, mode="r")}
    return _sliced(arrays, path, contract, chunk)


def _open_npz(path: str, contract: Contract, chunk: int) -> Source:
    # Not np.load, which leaves a damaged file open.
    with _refusing_damage(path), open(path, "rb") as file:
        loaded = np.lib.npyio.NpzFile(file)
        held = list(loaded)
        arrays = {port.name: loaded[port.name] for port in contract.inputs if port.name in held}
    missing = [port.name for port in contract.inputs if port.name not in arrays]
    if missing:
        raise InputError(
            f"{path!r} lacks the inputs {', '.join(missing)}; it holds {', '.join(held)}",
            hint="Name the arrays like the inputs: np.savez(path, x=...).",
        )
    return _sliced(arrays, path, contract, chunk)


@contextmanager
def _refusing_damage(path: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path!r} is not a sound NumPy file: {error}") from error


def _sliced(arrays: Mapping[str, Array], path: str, contract: Contract, chunk: int) -> Source:
    feeds = {port.name: _in_layout(port, arrays[port.name], path) for port in contract.inputs}
    frames = size_along(contract, feeds, "time") or 0
    chunks = (
        {port.name: _chunk_of(port, feeds[port.name], start, chunk) for port in contract.inputs}
        for start in range(0, frames, chunk)
    )
    return Source(frames, chunks)


def _only_input(contract: Contract, path: str) -> Port:
    if len(contract.inputs) != 1:
        names = ", ".join(port.name for port in contract.inputs)
        raise InputError(
            f"the artifact has {len(contract.inputs)} inputs ({names}), but {path!r} holds one",
            hint="Give an .npz file of arrays by input name.",
        )
    return contract.inputs[0]


def _in_layout(port: Port, array: Array, path: str) -> Array:
    """The array in the port's layout, where it may lack the batch axis and have frames first."""
    shape = frame_shape(port)
    if array.ndim == len(port.dims):
        return _single_sequence(port, array, path)
    if array.ndim == 1 and math.prod(shape) == 1 and port.time_axis is not None:
        array = array.reshape(-1, *shape)
    if array.ndim != len(port.dims) - 1 or array.shape[array.ndim - len(shape) :] != shape:
        frames = [] if port.time_axis is None else ["frames"]
        raise InputError(
            f"{path!r} holds an array of shape {list(array.shape)} for input {port}",
            hint=f"Give one of shape [{', '.join([*frames, *map(str, shape)])}].",
        )
    return to_port(port, array)


def _single_sequence(port: Port, array: Array, path: str) -> Array:
    if port.batch_axis is not None and array.shape[port.batch_axis] != 1:
        raise InputError(
            f"{path!r} holds {array.shape[port.batch_axis]} sequences for input {port}",
            hint="Give one sequence: this command runs one stream.",
        )
    return array


def _chunk_of(port: Port, array: Array, start: int, chunk: int) -> Array:
    if port.time_axis is not None:
        before = (slice(None),) * port.time_axis
        array = array[(*before, slice(start, start + chunk))]
    return cast(port, array, port.name)


_READERS: dict[str, Callable[[str, Contract, int], Source]] = {
    ".wav": _open_wav,
    ".csv": _open_csv,
    ".npy": _open_npy,
    ".npz": _open_npz,
}

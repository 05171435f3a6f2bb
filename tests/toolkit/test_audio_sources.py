"""Sound of every kind, against what soundfile and soxr say of it as a whole."""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnx import audio
from rnnx.sources import Source, open_source
from rnnx_runtime import Contract, InputError, MissingExtraError, Port

soundfile = pytest.importorskip("soundfile", reason="needs the extra rnnx[audio]")
soxr = pytest.importorskip("soxr", reason="needs the extra rnnx[audio]")

MONO = Port("x", "float32", ("batch", "time"), 0, 1)
STEREO = Port("x", "float32", ("batch", "time", 2), 0, 1)
WIDE = Port("x", "float32", ("batch", "time", 3), 0, 1)


def taking(port: Port, sample_rate: float | None = None) -> Contract:
    return Contract((port,), (), streaming=True, sample_rate=sample_rate)


def joined(source: Source, start: int = 0) -> Any:
    chunks = [feeds["x"][0] for feeds in source.chunks(start)]
    return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)


def noise(frames: int, channels: int = 1) -> Any:
    return np.random.default_rng(0).uniform(-0.9, 0.9, (frames, channels)).astype(np.float32)


@pytest.mark.parametrize(
    ("suffix", "form", "subtype"),
    [
        ("wav", "WAV", "FLOAT"),
        ("wav", "WAV", "DOUBLE"),
        ("wav", "WAVEX", "PCM_16"),
        ("wav", "WAVEX", "PCM_24"),
        ("wav", "RF64", "PCM_16"),
        ("wav", "WAV", "ULAW"),
        ("flac", "FLAC", "PCM_24"),
        ("ogg", "OGG", "VORBIS"),
        ("aiff", "AIFF", "PCM_16"),
        ("opus", "OGG", "OPUS"),
    ],
)
def test_every_file_gives_what_soundfile_gives(
    tmp_path: Path, suffix: str, form: str, subtype: str
) -> None:
    path = str(tmp_path / f"a.{suffix}")
    soundfile.write(path, noise(40_000, 2), 16000, format=form, subtype=subtype)
    expected, _ = soundfile.read(path, dtype="float32")
    source = open_source(path, taking(STEREO, 16000), chunk=999)
    assert np.array_equal(joined(source), expected)
    assert source.frames == len(expected)
    assert np.array_equal(joined(source, 20_000), expected[20_000:])
    assert (source.rate, source.notes) == (16000, [])


@given(
    rates=st.sampled_from([(44100, 16000), (8000, 16000), (48000, 44100), (16000, 100)]),
    frames=st.integers(0, 2000),
    chunk=st.integers(1, 300),
    share=st.floats(0, 1),
    block=st.sampled_from([1, 7, 500, 1 << 14]),
)
def test_resampling_in_pieces_is_resampling_as_a_whole(
    rates: tuple[int, int], frames: int, chunk: int, share: float, block: int
) -> None:
    before, after = rates
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnnx.wav_source.FILE_BLOCK", block)
        path = str(Path(folder, "a.wav"))
        soundfile.write(path, noise(frames), before, subtype="PCM_16")
        whole, _ = soundfile.read(path, dtype="float32")
        source = open_source(path, taking(MONO, after), chunk=chunk)
        found = joined(source)
        start = int(share * len(found))
        rest = joined(source, start)
    # A single frame in is none out, or one: soxr's own rounding of its length.
    expected = soxr.resample(whole, before, after) if frames else whole
    assert np.array_equal(found, expected)
    assert np.array_equal(rest, expected[start:])
    assert source.frames is not None
    assert source.frames >= len(found)
    assert source.rate == after
    assert source.notes == [f"resampled from {before} to {after} frames a second"]


def test_channels_are_averaged_for_one_value_and_told(tmp_path: Path) -> None:
    path = str(tmp_path / "a.wav")
    soundfile.write(path, noise(100, 2), 16000, subtype="PCM_16")
    samples, _ = soundfile.read(path, dtype="float32")
    source = open_source(path, taking(MONO, 16000), chunk=7)
    assert np.array_equal(joined(source), samples.mean(1))
    assert source.notes == ["2 channels averaged"]
    with pytest.raises(InputError, match="2 channels, but input x"):
        open_source(path, taking(WIDE, 16000), chunk=7)


@pytest.mark.parametrize(
    ("suffix", "whole", "says"),
    [("wav", 39_990, "announces 40000 frames, it ends after 39990"), ("flac", 32768, "cut off")],
)
def test_sound_that_is_cut_off_gives_its_frames_and_says_so(
    tmp_path: Path, suffix: str, whole: int, says: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(40_000), 16000, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-20])
    found, chunks = [], open_source(str(path), taking(MONO), chunk=2).chunks(0)
    with pytest.raises(InputError, match=says):
        found.extend(chunks)
    assert sum(feeds["x"].size for feeds in found) == whole


@pytest.mark.parametrize("package", ["soundfile", "soxr", "sounddevice"])
def test_without_the_extra_the_line_to_type_is_told(
    tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    soundfile.write(tmp_path / "a.flac", noise(10), 8000)
    soundfile.write(tmp_path / "a.wav", noise(10), 8000, subtype="PCM_16")
    path = {"soundfile": tmp_path / "a.flac", "soxr": tmp_path / "a.wav", "sounddevice": "mic"}
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=package) as caught:
        open_source(str(path[package]), taking(MONO, 16000), chunk=1)
    assert caught.value.hint == "pip install 'rnnx[audio]'"


RAW = {
    "u8": ("u1", 2**7, 2**7),
    "s16le": ("<i2", 2**15, 0),
    "s32le": ("<i4", 2**31, 0),
    "f32le": ("<f4", 1, 0),
}


def raw(form: str, frames: int, channels: int) -> tuple[bytes, Any]:
    """Bytes and the frames they stand for."""
    dtype, scale, middle = RAW[form]
    values = noise(frames, channels) * scale + middle
    stored = values.astype(dtype)
    return stored.tobytes(), ((stored.astype(np.float64) - middle) / scale).astype(np.float32)


@pytest.mark.parametrize("form", RAW)
def test_raw_samples_from_a_file_and_from_stdin(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, expected = raw(form, 50, 2)
    (tmp_path / "a.raw").write_bytes(data)
    source = open_source(str(tmp_path / "a.raw"), taking(STEREO), chunk=7, form=form, rate=8000)
    assert np.array_equal(joined(source), expected)
    assert np.array_equal(joined(source, 21), expected[21:])
    assert (source.frames, source.rate, source.live) == (50, 8000, False)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    source = open_source("-", taking(STEREO), chunk=7, form=form)
    assert np.array_equal(joined(source), expected)
    assert (source.frames, source.rate, source.live) == (None, None, True)


def test_24_bits_are_the_upper_24_of_32(tmp_path: Path) -> None:
    values = np.array([0, 1, -1, 2**23 - 1, -(2**23)])
    data = b"".join(int(v).to_bytes(3, "little", signed=True) for v in values)
    (tmp_path / "a.raw").write_bytes(data)
    source = open_source(str(tmp_path / "a.raw"), taking(MONO), chunk=2, form="s24le")
    assert np.array_equal(joined(source), (values / 2**23).astype(np.float32))


def test_raw_samples_are_resampled_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    data, samples = raw("s16le", 3000, 1)
    pipe = io.BytesIO(data)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
    source = open_source("-", taking(MONO, 8000), chunk=100, form="s16le", rate=16000)
    chunks = source.chunks(0)
    first = next(chunks)["x"][0]
    assert pipe.tell() < len(data)  # what has come is answered before the end
    found = np.concatenate([first, *(feeds["x"][0] for feeds in chunks)])
    assert np.array_equal(found, soxr.resample(samples[:, 0], 16000, 8000))


def test_raw_samples_that_end_within_a_frame(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(4 * 5 + 3))
    source = open_source(str(tmp_path / "a.raw"), taking(STEREO), chunk=1, form="s16le")
    found, chunks = [], source.chunks(0)
    with pytest.raises(InputError, match="within a frame: 3 bytes are left over"):
        found.extend(chunks)
    assert len(found) == 5


def test_a_rate_that_the_file_denies_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(10), 8000, subtype="PCM_16")
    np.save(tmp_path / "a.npy", noise(10)[:, 0])
    with pytest.raises(InputError, match="has 8000 frames a second, not 16000"):
        open_source(str(tmp_path / "a.wav"), taking(MONO), chunk=1, rate=16000)
    with pytest.raises(InputError, match="takes 8000 frames a second, not 16000"):
        open_source(str(tmp_path / "a.npy"), taking(MONO, 8000), chunk=1, rate=16000)
    assert open_source(str(tmp_path / "a.npy"), taking(MONO), chunk=1, rate=50).rate == 50


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e-3, 1e9])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, rate: float) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(20))
    with pytest.raises(InputError, match=r"is none|cannot be resampled"):
        open_source(str(tmp_path / "a.raw"), taking(MONO, 16000), chunk=1, form="s16le", rate=rate)


@given(
    lengths=st.lists(st.integers(0, 20), max_size=8),
    chunk=st.integers(1, 30),
    start=st.integers(0, 90),
)
def test_blocks_of_any_length_are_cut_alike(lengths: list[int], chunk: int, start: int) -> None:
    row = np.arange(sum(lengths))[:, None]
    blocks = np.split(row, np.cumsum(lengths)[:-1]) if lengths else []
    found = list(audio.in_chunks(audio.without_first(blocks, start), chunk))
    assert np.concatenate([*found, row[:0]]).tolist() == row[start:].tolist()
    assert all(len(part) == chunk for part in found[:-1])
    assert all(0 < len(part) <= chunk for part in found)


def written(form: str) -> bytes:
    """A sound file of 50 frames."""
    file = io.BytesIO()
    soundfile.write(file, noise(50, 2), 16000, format=form, subtype="PCM_16")
    return file.getvalue()


@settings(max_examples=100)
@given(
    suffix=st.sampled_from(["wav", "flac", "aiff"]),
    changes=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 255)), max_size=6),
    length=st.none() | st.integers(0, 99),
)
def test_damaged_sound_gives_frames_or_an_error_that_is_ours(
    suffix: str, changes: list[tuple[int, int]], length: int | None
) -> None:
    data = bytearray(written(suffix.upper()))
    for place, value in changes:
        data[place % len(data)] = value
    with tempfile.TemporaryDirectory() as folder, suppress(InputError):
        path = Path(folder, f"a.{suffix}")
        path.write_bytes(data[:length])
        assert joined(open_source(str(path), taking(STEREO), chunk=20)).shape[1:] in ((2,), ())

"""Speech: a split that does not leak, sound as numpy hears it, letters as they are counted."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnx
from rnnx.recipes import speech
from rnnx.recipes.packages import DataError
from rnnx.recipes.recipe import in_torch, streamed
from rnnx.recipes.speech import CHUNK, Listener, error_rate, loss, write_down
from rnnx.recipes.speech_data import (
    LETTERS,
    Recording,
    Recordings,
    alike,
    baselines,
    letter_error_rate,
    load,
    phrases,
    spell,
    split,
    transcripts,
)
from rnnx.recipes.speech_frames import BANDS, HOP, Spectrum, batches, letters, mel_filters, vary

TEXTS = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6).map(" ".join))
TONES = {"a": 500, "b": 1000, "c": 2000}
STRIDE = speech._STRIDE


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More cost time at this size, above all where other tests run beside."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def asterisk() -> Recordings:
    try:
        return load()
    except DataError as error:
        pytest.skip(f"{error}; {error.hint}")


def silent(text: str, samples: int = 800) -> Recording:
    return Recording(np.zeros(samples, np.float32), text)


def sung(text: str, rng: np.random.Generator) -> Recording:
    """Each letter a tone of its own, a fifth of a second long, with rests and some noise."""
    time = np.arange(1600) / speech.SAMPLE_RATE
    tones = [np.sin(2 * np.pi * TONES[letter] * time) * (time < 0.15) for letter in text]
    noise = rng.normal(0, 0.01, len(text) * len(time))
    return Recording((0.5 * np.concatenate(tones) + noise).astype(np.float32), text)


def distance(one: str, other: str) -> int:
    """Levenshtein's, by its recursion."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        above, row = row, [i + 1]
        for j, its in enumerate(other):
            row.append(min(above[j] + (letter != its), above[j + 1] + 1, row[j] + 1))
    return row[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Press 1, or #.", "press one or pound"),
        ("You're now IN [beep] the (new) queue...", "you're now in the queue"),
        ("menu 162", ""),  # one number, or three words
        ("[ascending tones]", ""),
    ],
)
def test_transcripts_are_spelt_in_the_networks_letters(text: str, expected: str) -> None:
    assert spell(text) == expected
    assert set(expected) <= set(LETTERS)


def test_remarks_and_what_is_not_said_are_left_out() -> None:
    lines = ["; Core sounds", "", "beep: [this is a tone]", "at: At the tone: now"]
    assert transcripts(lines) == {"at": "at the tone now"}


@given(TEXTS)
def test_texts_alike_are_those_that_a_chain_of_phrases_joins(texts: list[str]) -> None:
    groups = alike(texts)
    assert sorted(text for group in groups for text in group) == sorted(set(texts))
    for one, other in itertools.combinations(groups, 2):
        assert not any(phrases(a) & phrases(b) for a in one for b in other)
    for group in groups:
        reached = {min(group)}
        for _ in group:
            reached |= {a for a in group if any(phrases(a) & phrases(b) for b in reached)}
        assert reached == group


@given(TEXTS)
def test_no_prompt_is_lost_and_none_stands_in_two_parts(texts: list[str]) -> None:
    parts = split([silent(text) for text in texts])
    said = [[r.text for r in part] for part in (parts.train, parts.validation, parts.test)]
    assert sorted(itertools.chain(*said)) == sorted(texts)
    assert not any(set(a) & set(b) for a, b in itertools.combinations(said, 2))


def test_asterisks_prompts_are_split_without_leaks(asterisk: Recordings) -> None:
    parts = [asterisk.train, asterisk.validation, asterisk.test]
    seen = [set.union(*(phrases(r.text) | {(r.text,)} for r in part)) for part in parts]
    assert not any(a & b for a, b in itertools.combinations(seen, 2))
    assert sum(map(len, parts)) > 500
    assert 0.75 < len(asterisk.train) / sum(map(len, parts)) < 0.85


def test_a_missing_data_package_gives_the_line_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RNNX_DATA", str(tmp_path))
    with pytest.raises(DataError, match="asterisk-core-sounds-en-wav") as raised:
        load()
    assert raised.value.hint == "rnnx demo speech --fetch"


@given(st.lists(st.tuples(*[st.text("ab ", min_size=1)] * 2), min_size=1))
def test_letters_are_counted_as_levenshtein_does(pairs: list[tuple[str, str]]) -> None:
    said, written = (
        [" ".join(text.split()) or "a" for text in column] for column in zip(*pairs, strict=True)
    )
    wrong = sum(distance(a, b) for a, b in zip(said, written, strict=True))
    expected = 100 * wrong / sum(map(len, said))
    assert letter_error_rate(said, written) == pytest.approx(expected)


def test_the_baseline_is_the_prompt_as_long() -> None:
    train = [silent("ab", 800), silent("abcd", 1600)]
    data = Recordings(train, [], [silent("abce", 1500), silent("a", 700)])
    # "abcd" for "abce" is one letter wrong, "ab" for "a" one too many: two of five.
    assert baselines(data) == {"prompt of that length": pytest.approx(40)}


def test_the_spectrum_is_the_one_of_numpys_fft() -> None:
    rng = np.random.default_rng(0)
    audio = rng.normal(0, 0.1, 1000).astype(np.float32)
    found = Spectrum()(torch.from_numpy(audio)[None])[0].numpy()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    frames = np.stack([audio[i : i + 256] * window for i in range(0, 1000 - 255, HOP)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    expected = np.log(power @ mel_filters().numpy() + 1e-4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_mel_filters_share_each_frequency_between_two() -> None:
    filters = mel_filters().numpy()
    peaks = filters.argmax(0)
    assert (np.diff(peaks) >= 0).all()
    np.testing.assert_allclose(filters[peaks[1] : peaks[-2]].sum(1), 1, atol=1e-5)


def test_spectra_are_normalised_over_the_training_part() -> None:
    rng = np.random.default_rng(0)
    audio = [rng.normal(0, 0.1, n).astype(np.float32) for n in (900, 2000)]
    spectrum = Spectrum()
    fitted = spectrum.fit(audio)
    frames = torch.cat(fitted)
    torch.testing.assert_close(frames.mean(0), torch.zeros(BANDS), atol=1e-4, rtol=0)
    torch.testing.assert_close(frames.std(0), torch.ones(BANDS), atol=1e-4, rtol=0)
    torch.testing.assert_close(spectrum(torch.from_numpy(audio[0])[None])[0], fitted[0])


@given(st.integers(1, 40))
def test_varied_frames_stay_frames(frames: int) -> None:
    x = torch.randn(frames, BANDS)
    before = x.clone()
    varied = vary(x)
    assert 0.79 * frames - 1 <= len(varied) <= 1.21 * frames + 1
    assert varied.isfinite().all()
    assert torch.equal(x, before)


def test_batches_hold_every_recording_once() -> None:
    texts = ["".join(text) for text in itertools.product("abc", repeat=2)]
    pairs = [(torch.randn(5 + i, BANDS), letters(text)) for i, text in enumerate(texts)]
    seen: list[str] = []
    for x, lengths, targets, target_lengths in batches(pairs, 4):
        assert len(x) == len(lengths) <= 4
        assert x.shape[1] == lengths.max()
        rows = zip(targets, target_lengths, strict=True)
        seen += ["".join(LETTERS[i] for i in row[:n]) for row, n in rows]
    assert sorted(seen) == texts


def test_a_padded_batch_loses_what_each_recording_loses() -> None:
    torch.manual_seed(0)
    model = Listener(hidden_size=4).eval()
    x = torch.randn(2, 30, BANDS)
    x[1, 20:] = 0
    lengths, targets, counts = (torch.tensor(n) for n in ([30, 20], [[1, 2, 3], [4, 5, 0]], [3, 2]))
    together = loss(model.recognise(x), lengths, targets, counts)
    alone = [
        loss(model.recognise(x[i : i + 1, :frames]), lengths[i : i + 1], targets[i : i + 1, :n], n1)
        for i, (frames, n, n1) in enumerate(zip((30, 20), (3, 2), counts.split(1), strict=True))
    ]
    torch.testing.assert_close(together, torch.stack(alone).mean())


def test_what_is_written_is_spelt_out() -> None:
    path = ["", "a", "a", "", "a", " ", " ", "b", ""]
    logits = np.full((1, len(path), len(LETTERS)), -20, np.float32)
    logits[0, range(len(path)), [LETTERS.index(letter) for letter in path]] = 0
    assert write_down(logits) == "aa b"


def test_errors_are_those_of_what_is_written() -> None:
    recordings = [silent("ab"), silent("c")]

    def run(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.eye(len(LETTERS), dtype=np.float32)[None, letters("ab")] * 20

    assert error_rate(run, recordings) == pytest.approx(100 * 2 / 3)


@settings(max_examples=20)
@given(st.sampled_from(("rnn", "gru", "lstm")), st.integers(0, 2399))
def test_it_hears_little_ahead(cell: str, sample: int) -> None:
    torch.manual_seed(0)
    model, audio = Listener(cell, hidden_size=4).eval(), torch.randn(1, 2400)
    other = audio.clone()
    other[:, sample:] = torch.randn(1, 2400 - sample)
    with torch.no_grad():
        one, two = model(audio)[0], model(other)[0]
    frames = (2400 - 256) // HOP + 1
    assert len(one) == (frames - 1) // STRIDE + 1
    # The last sample that an output hears: four spectra ahead, each of 256 samples.
    heard = (STRIDE * torch.arange(len(one)) + 4) * HOP + 256
    torch.testing.assert_close(one[heard <= sample], two[heard <= sample])


def test_a_step_is_long_enough_for_a_window() -> None:
    with torch.no_grad():  # torch's own step is timed too
        assert Listener(hidden_size=4).eval()(torch.zeros(1, CHUNK)).shape[1] == 1


def test_training_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = ["".join(text) for text in itertools.product("abc", repeat=3)]
    recordings = [sung(text, rng) for text in texts]
    others = [sung(text, rng) for text in ("abcab", "cacb", "bb")]
    monkeypatch.setattr(speech, "_BATCH", 4)
    monkeypatch.setattr(speech, "_EPOCHS", 20)
    model = speech.train(Recordings(recordings, others, others))
    assert not model.training
    assert error_rate(in_torch(model), others) < 30


@pytest.mark.full
def test_a_stream_of_sound_gives_what_the_recording_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, path = Listener(hidden_size=8).eval(), tmp_path / "speech.onnx"
    rng = np.random.default_rng(0)
    data = Recordings([], [sung("abc", rng)], [])
    rnnx.export(model, speech.example(data), path, streaming=True)
    x = speech.calibration(data)[0]
    for chunk in (CHUNK, 1000):
        np.testing.assert_allclose(streamed(str(path), chunk)(x), in_torch(model)(x), atol=1e-4)

"""The keyword spotter: voices told apart, none of them in two parts, decisions as counted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnnx.recipes import keywords, keywords_data
from rnnx.recipes.keywords import Spotter, accuracy, loss
from rnnx.recipes.keywords_data import Clips, Split, baselines, decisions, surest, tell_speakers
from rnnx.recipes.keywords_voices import batches, vary, warping
from rnnx.recipes.packages import DataError

CELLS = ("rnn", "gru", "lstm")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More cost time at this size, above all where other tests run beside."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits() -> Split:
    try:
        return keywords.load()
    except DataError as error:
        pytest.skip(f"{error}: {error.hint}")


def clips(count: int, seed: int = 0, voices: int = 1) -> tuple[Clips, npt.NDArray[np.int64]]:
    """Clips in which the digit is a bump, up or down, of one feature; the voice is an offset."""
    rng = np.random.default_rng(seed)
    said, voice = rng.permuted(np.arange(count) % 10), np.arange(count) % voices
    offsets = rng.normal(0, 3, (voices, 13))
    frames = []
    for digit, speaker in zip(said, voice, strict=True):
        x = rng.normal(offsets[speaker], 0.3, (rng.integers(8, 14), 13))
        x[2:6, digit // 2] += 4 if digit % 2 else -4
        frames.append(x.astype(np.float32))
    return Clips(frames, said), voice


def test_no_clip_stands_in_two_parts_and_no_voice_of_the_test_is_heard(digits: Split) -> None:
    parts = (digits.train, digits.familiar, digits.validation, digits.test)
    assert sum(map(len, parts)) == 3000
    seen = [frames.tobytes() for part in parts for frames in part.frames]
    assert len(set(seen)) >= 2990  # the data itself repeats a few, if any
    for part in (digits.validation, digits.test):
        counts = np.bincount(part.digits, minlength=10)
        # One speaker said each digit fifty times; two or none would not come out so evenly.
        assert np.abs(counts - 50).max() <= 2


def test_voices_are_told_apart_whatever_they_say() -> None:
    made, voice = clips(600, voices=6)
    found = tell_speakers(made)
    pairs = set(zip(voice.tolist(), found.tolist(), strict=True))
    assert len(pairs) == 6


def test_the_surest_voice_is_the_one_of_fifty_clips_each() -> None:
    said = np.tile(np.arange(10), 300)
    speakers = np.repeat(np.arange(6), 500)
    speakers[:7] = 3  # seven clips of voice 0 are taken for voice 3
    assert surest(speakers, said) == [1, 2, 4, 5, 0, 3]


def test_a_missing_package_names_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RNNX_DATA", "/nowhere")
    monkeypatch.setattr("rnnx.recipes.packages._installed", lambda name: None)
    with pytest.raises(DataError) as raised:
        keywords_data.load()
    assert raised.value.hint == "rnnx demo keywords --fetch"


def test_accuracy_is_of_the_last_frame() -> None:
    made, _ = clips(20)

    def told(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Right at the last frame for the first five clips, wrong before."""
        place = next(i for i, f in enumerate(made.frames) if np.array_equal(f, x[0]))
        y = np.zeros((1, x.shape[1], 10))
        y[0, :, (made.digits[place] + 1) % 10] = 1
        y[0, -1, made.digits[place]] = 2 if place < 5 else 0
        return y

    assert accuracy(told, made) == 25.0


def test_decisions_are_the_first_confident_ones() -> None:
    made = Clips([np.zeros((4, 13), np.float32)] * 2, np.array([1, 2]))
    logits = np.zeros((1, 4, 10))
    logits[0, 1, 3] = 1  # not sure
    logits[0, 2, 1] = 9  # sure, after three of four frames
    logits[0, 3, 2] = 9
    heard, right = decisions(lambda x: logits, made)
    assert heard.tolist() == [0.75, 0.75]
    assert right.tolist() == [True, False]
    assert np.isnan(decisions(lambda x: 0 * logits, made)[0]).all()


def test_baselines_score_as_counted() -> None:
    train, _ = clips(200)
    test = Clips(train.frames[:50], train.digits[:50])
    found = baselines(Split(train, test, test, test))
    commonest = max(range(10), key=train.digits.tolist().count)
    right = test.digits.tolist().count(commonest)
    assert found["commonest digit"] == pytest.approx(100 * right / 50)
    assert found["nearest mean and spread"] > 90  # a bump moves its feature's mean


@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=10)
@given(frame=st.integers(0, 19))
def test_a_decision_hears_nothing_that_comes_after_it(cell: str, frame: int) -> None:
    torch.manual_seed(0)  # with others, all four units may be deaf to one frame
    model, x = Spotter(cell, hidden_size=4).eval(), torch.randn(1, 20, 13)
    other = x.clone()
    other[:, frame:] = torch.randn(1, 20 - frame, 13)
    with torch.no_grad():
        torch.testing.assert_close(model(x)[:, :frame], model(other)[:, :frame])
        assert not torch.allclose(model(x)[:, frame:], model(other)[:, frame:])


def test_the_mean_of_the_last_frames_is_taken_off() -> None:
    x = torch.randn(1, 60, 13)
    found = Spotter(hidden_size=4).centred(x)[0]
    for frame in (0, 5, 47, 48, 59):
        last = x[0, max(0, frame - 47) : frame + 1]
        expected = x[0, frame] - last.sum(0) / (len(last) + 3)
        torch.testing.assert_close(found[frame], expected)


def test_padding_counts_for_nothing() -> None:
    logits, lengths = torch.randn(2, 6, 10), torch.tensor([6, 3])
    said, before = torch.tensor([1, 2]), loss(logits, lengths, torch.tensor([1, 2]))
    logits[1, 3:] += 100 * torch.randn(3, 10)
    assert torch.equal(loss(logits, lengths, said), before)


def test_a_pass_hears_each_clip_once() -> None:
    made, _ = clips(70)
    heard = [
        x[i, : lengths[i]].numpy().tobytes()
        for x, lengths, _ in batches(made, 32)
        for i in range(len(x))
    ]
    assert sorted(heard) == sorted(frames.tobytes() for frames in made.frames)


def test_no_warp_changes_nothing_and_a_warp_moves_the_spectrum() -> None:
    torch.testing.assert_close(warping(1.0), torch.eye(13))
    bands = torch.arange(40) + 0.5
    cosines = torch.cos(torch.pi / 40 * torch.arange(13)[:, None] * bands)
    peak = torch.exp(-((bands - 16.5 * 1.25) ** 2) / 30)
    scale = torch.full((13,), 2 / 40)
    scale[0] = 1 / 40
    orthonormal = cosines * scale.sqrt()[:, None]
    moved = orthonormal.T @ ((orthonormal @ peak) @ warping(1.25))
    assert moved.argmax() == 16  # the band at 16.5 reads what stood at 16.5 * 1.25


@given(st.integers(2, 40))
def test_varied_clips_keep_their_shape(frames: int) -> None:
    x, lengths = vary(torch.randn(3, frames, 13), torch.tensor([1, 2, frames]), torch.ones(13))
    assert x.shape == (3, int(lengths[2]), 13) or abs(x.shape[1] - int(lengths[2])) <= 1
    assert lengths.min() >= 1
    assert lengths.max() <= x.shape[1]
    assert x.isfinite().all()


@pytest.mark.parametrize(
    "cell", ["gru", *(pytest.param(cell, marks=pytest.mark.full) for cell in ("rnn", "lstm"))]
)
def test_training_learns(cell: str) -> None:
    made, _ = clips(320)
    others, _ = clips(60, seed=1)
    model = keywords.train(Split(made, made, others, made), cell=cell)
    assert accuracy(keywords.in_torch(model), others) > 30  # by chance it would be 10


def test_the_same_seed_gives_the_same_weights() -> None:
    made, _ = clips(40)
    data = Split(made, made, made, made)
    mine, theirs = (keywords.train(data, cell="rnn", seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)

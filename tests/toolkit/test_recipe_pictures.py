"""State, gates and attention: what the pictures show is what the networks do."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

from command_line import run as run_command
from rnnx.recipes import attention, gates
from rnnx.recipes.encoder_decoder import EncoderDecoder, greedy
from rnnx.recipes.encoder_decoder_data import START, padded
from rnnx.recipes.gradients import FORGET_BIAS, Network
from rnnx.recipes.shipped import FORECASTER, HOURS
from rnnx.recipes.state import carried
from rnnx_runtime import Stream


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """More cost time at this size, above all where other tests run beside."""
    torch.set_num_threads(1)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch or two of training: the pictures are drawn all the same."""
    monkeypatch.setattr(gates, "_STEPS", 2)
    monkeypatch.setattr(attention, "_WORDS", 64)
    monkeypatch.setattr(attention, "_EPOCHS", 1)


def test_the_state_after_each_hour_is_the_streams() -> None:
    hours = np.loadtxt(HOURS, np.float32, delimiter=",", skiprows=1)
    states = carried(Stream(FORECASTER), hours)
    for count in (1, 30, len(hours)):
        stream = Stream(FORECASTER)
        stream.feed(hours[None, :count])
        np.testing.assert_allclose(states[count - 1], stream.states()["s001"][0], atol=1e-5)


def test_an_lstm_written_out_answers_as_torchs() -> None:
    torch.manual_seed(0)
    network, x = Network("lstm", 2, 1, FORGET_BIAS), torch.randn(24, 2)
    inside = gates.gates(network, x)
    with torch.no_grad():
        torch.testing.assert_close(network.head(inside["h"][-1:]), network(x[None]))
    for name in ("input gate", "forget gate"):
        assert inside[name].min() > 0
        assert inside[name].max() < 1


def test_a_forget_gate_is_open_where_its_bias_says_so() -> None:
    torch.manual_seed(0)
    x = torch.randn(24, 2)
    closed, opened = (
        gates.gates(Network("lstm", 2, 1, bias), x)["forget gate"].mean() for bias in (-9.0, 9.0)
    )
    assert closed < 0.01 < 0.99 < opened


def test_words_are_written_backwards() -> None:
    for source, target in attention.words(np.random.default_rng(0), 50):
        assert 3 <= len(source) <= 10
        assert target[::-1] == source
        assert set(attention.LETTERS.words(source)) <= set("abcdefghij")


def test_the_weights_are_those_that_the_network_writes_with() -> None:
    torch.manual_seed(0)
    network = EncoderDecoder(14, 14, "gru", 8).eval()
    source = attention.LETTERS.ids("headache")
    (written,) = greedy(network, [np.array(source)], 5)
    looks = attention.weights(network, source, written)
    assert looks.shape == (len(written), len(source))
    torch.testing.assert_close(looks.sum(1), torch.ones(len(written)))
    with torch.no_grad():
        memory, state = network.encode(*padded([source]))
        for row, token in zip(looks, [START, *written[:-1]], strict=True):
            y, state = network.decoder(network.target(torch.tensor([[token]])), state)
            logits = network.head(network.mixed(y, (row @ memory[0][0])[None, None]))
            assert logits.argmax() == written[0]
            written = written[1:]


@pytest.mark.parametrize("name", ["state", "gates", "attention"])
def test_the_command_draws(
    name: str, quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "made" / "here"
    ended = run_command(capsys, "demo", name, "-o", str(folder), "--json")
    assert ended.code == 0, ended.err
    path = folder / f"{name}.png"
    assert json.loads(ended.out) == {"picture": str(path)}
    assert list(folder.iterdir()) == [path]
    pixels = matplotlib.image.imread(path)[..., :3]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    ended = run_command(capsys, "demo", name, "-o", str(folder))
    assert ended.out == f"picture: {path}\n"

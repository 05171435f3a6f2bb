"""Write down what is said, letter by letter as it comes, with CTC, in plain PyTorch."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

import rnnx
from rnnx.extras import load as load_extra
from rnnx.recipes.recipe import (
    Array,
    Metric,
    Recipe,
    Run,
    Tell,
    best_device,
    descend,
    in_torch,
    recurrent,
    streamed,
)
from rnnx.recipes.speech_data import (
    LETTERS,
    SAMPLE_RATE,
    Audio,
    Recording,
    Recordings,
    baselines,
    letter_error_rate,
    load,
)
from rnnx.recipes.speech_frames import BANDS, HOP, Spectrum, batches, letters

_STRIDE = 3  # the recurrent layers read a frame every 30 ms
CHUNK = 2 * _STRIDE * HOP  # samples: 60 ms, more than one window
_EPOCHS = 30
_BATCH = 8
_LEARNING_RATE = 0.003


class Listener(nn.Module):
    """Reads sound, and gives for each 30 ms how likely each letter is; hears 72 ms ahead.

    Args:
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        hidden_size: units of each recurrent layer.
    """

    sample_rate = SAMPLE_RATE
    labels = LETTERS

    def __init__(self, cell: str = "gru", hidden_size: int = 192) -> None:
        super().__init__()
        self.spectrum = Spectrum()
        self.context = nn.Conv1d(BANDS, hidden_size, 9, stride=_STRIDE, padding=4)
        self.dropout = nn.Dropout(0.3)
        self.recurrent = recurrent(cell, hidden_size, hidden_size, num_layers=2, dropout=0.3)
        self.head = nn.Linear(hidden_size, len(LETTERS))

    def forward(self, audio: Tensor) -> Tensor:
        """Recognise whole recordings.

        Args:
            audio: float32 `[batch, time]` at 8 kHz.

        Returns:
            For each 30 ms the logits of `LETTERS`, float32 `[batch, frames, 29]`.
        """
        return self.recognise(self.spectrum(audio))

    def recognise(self, spectrum: Tensor) -> Tensor:
        """The logits, from a spectrum, float32 `[batch, frames, 40]`."""
        frames = self.context(spectrum.transpose(1, 2)).relu().transpose(1, 2)
        hidden, _ = self.recurrent(self.dropout(frames))
        logits: Tensor = self.head(self.dropout(hidden))
        return logits


def train(
    data: Recordings,
    *,
    cell: str = "gru",
    full: bool = False,
    seed: int = 0,
    tell: Tell = lambda message: None,
) -> Listener:
    """Train; the weights that did best on the validation part.

    Args:
        data: the recordings; the test part is not listened to.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        full: twice the units, four times the passes over the recordings.
        seed: of the first weights, the order of the recordings and how they are varied.
        tell: told after each fifth pass of the letters that are wrong in the validation part.
    """
    torch.manual_seed(seed)
    device, epochs = best_device(), 4 * _EPOCHS if full else _EPOCHS
    model = Listener(cell, 384 if full else 192)
    spectra = model.spectrum.fit(recording.audio for recording in data.train)
    pairs = [(s, letters(r.text)) for s, r in zip(spectra, data.train, strict=True)]
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    steps = epochs * math.ceil(len(pairs) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    best, weights = math.inf, model.state_dict()
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in batches(pairs, _BATCH):
            frames, *targets = (part.to(device) for part in batch)
            descend(model, optimizer, loss(model.recognise(frames), *targets))
            schedule.step()
        if epoch % 5:
            continue
        wrong = error_rate(in_torch(model.eval()), data.validation)
        tell(f"epoch {epoch} of {epochs}: {wrong:.1f} % of the validation part's letters are wrong")
        if wrong <= best:
            best, weights = wrong, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model.cpu().eval()


def loss(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor) -> Tensor:
    """CTC over the frames of each recording; `lengths` are those of its spectrum."""
    log_probs = logits.log_softmax(2).transpose(0, 1)
    frames = (lengths - 1) // _STRIDE + 1
    found: Tensor = nn.functional.ctc_loss(
        log_probs, targets, frames, target_lengths, zero_infinity=True
    )
    return found


def write_down(logits: Array) -> str:
    """What is said, from the network's output `[1, frames, 29]`, by beam search."""
    search = rnnx.CTCBeamSearch(beam_size=10, min_log_prob=-8)
    spans = [*search.feed(rnnx.log_softmax(logits[0])), *search.flush()]
    return " ".join("".join(LETTERS[span.id] for span in spans).split())


def error_rate(run: Run, recordings: list[Recording]) -> float:
    """Letters that are wrong, missing or too many, in percent of those said."""
    return letter_error_rate(*_said_and_written(run, recordings))


def score(run: Run, data: Recordings) -> float:
    """The letter error rate of the test part, in percent."""
    return error_rate(run, data.test)


def show(data: Recordings, artifact: str) -> dict[str, str]:
    """The word error rate, and what it wrote of the longest prompt."""
    said, written = _said_and_written(streamed(artifact, CHUNK), data.test)
    jiwer = load_extra("jiwer", "the word error rate")
    longest = max(range(len(said)), key=lambda i: len(said[i]))
    return {
        "words": f"{100 * jiwer.wer(said, written):.1f} % are wrong, missing or too many",
        "said": said[longest],
        "written": written[longest],
    }


def example(data: Recordings) -> tuple[Tensor]:
    """A recording, float32 `[1, time]`."""
    return (torch.from_numpy(calibration(data)[0]),)


def calibration(data: Recordings) -> list[Audio]:
    """Recordings of the validation part, float32 `[1, time]`."""
    return [recording.audio[None] for recording in data.validation]


RECIPE = Recipe(
    name="speech",
    title="write down what a telephone exchange says",
    metric=Metric("letter error rate", "%", higher_is_better=False, digits=1),
    packages=("asterisk-core-sounds-en-wav", "asterisk-core-sounds-en"),
    load=load,
    train=train,
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
    chunk=CHUNK,
    show=show,
)


def _said_and_written(run: Run, recordings: list[Recording]) -> tuple[list[str], list[str]]:
    written = [write_down(run(recording.audio[None])) for recording in recordings]
    return [recording.text for recording in recordings], written

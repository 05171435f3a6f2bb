"""`rnnx demo gates`: an LSTM that learned the adding problem, and what its gates do."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from rnnx.picture_file import save
from rnnx.recipes.gradients import FORGET_BIAS, Network, train
from rnnx.recipes.gradients_tasks import FRAMES, TASKS
from rnnx.recipes.recipe import Tell

_STEPS = 1000


def run(directory: Path, *, seed: int, tell: Tell) -> Path:
    """Train, and draw `gates.png` for a sequence that was not trained on."""
    torch.manual_seed(seed)
    task, rng = TASKS["adding"], torch.Generator().manual_seed(seed)
    network = Network("lstm", task.inputs, task.outputs, FORGET_BIAS)
    tell(f"an LSTM learns to add, from {_STEPS} batches")
    train(network, task, _STEPS, rng, FRAMES)
    x = task.draw(rng)[0][0]
    path = directory / "gates.png"
    draw(path, x, gates(network, x))
    return path


@torch.no_grad()
def gates(network: Network, x: Tensor) -> dict[str, Tensor]:
    """An LSTM, written out: what happens inside at each frame.

    Args:
        network: of an LSTM of one layer.
        x: one sequence, float32 `[time, inputs]`.

    Returns:
        How far two gates are open, in [0, 1], what the frame adds to the state c, and the state h
        after it; by name, float32 `[time, units]` each.
    """
    weight, state_weight, bias, state_bias = network.recurrent.all_weights[0]
    h = c = torch.zeros(network.recurrent.hidden_size)
    frames = []
    for frame in x:
        before = weight @ frame + bias + state_weight @ h + state_bias
        i, f, new, o = before.chunk(4)
        added = i.sigmoid() * new.tanh()
        c = f.sigmoid() * c + added
        h = o.sigmoid() * c.tanh()
        frames.append((i.sigmoid(), f.sigmoid(), added, h))
    names = ("input gate", "forget gate", "added to c", "h")
    return dict(zip(names, map(torch.stack, zip(*frames, strict=True)), strict=True))


def draw(path: Path, x: Tensor, inside: dict[str, Tensor]) -> None:
    """Draw the numbers, the marked ones red, above the gates and what they add, unit by unit."""
    figure = Figure(figsize=(9, 8), dpi=80, layout="constrained")
    above, *below = figure.subplots(4, 1, sharex=True, height_ratios=(1, 2, 2, 2))
    colors = ["tab:red" if mark else "0.8" for mark in x[:, 1]]
    above.bar(range(len(x)), x[:, 0].numpy(), color=colors)
    above.set_title("numbers; the red ones are to be added")
    order = inside["added to c"].sum(0).argsort()
    for axes, name in zip(below, inside, strict=False):
        least, most, shades = (0, 1, "viridis") if "gate" in name else (-0.5, 0.5, "RdBu_r")
        values = inside[name][:, order].T.numpy()
        image = axes.imshow(values, vmin=least, vmax=most, cmap=shades, aspect="auto")
        axes.set_title(name)
        axes.set_ylabel("units")
        figure.colorbar(image, ax=axes)
    below[-1].set_xlabel("frame")
    save(figure, path)

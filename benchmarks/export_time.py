"""How long an export takes, beside torch.onnx.export on the same network in the same run.

torch's own export is given the same example and axis names. What rnnx does besides (it proves the
graph equal to the model at four sizes) is part of its time, and shown on its own.
"""

from __future__ import annotations

import contextlib
import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

import rnnx
from rnnx.table import render
from rnnx_exporters import torch_export

ROUNDS = 5
PARTS = ("refuse_kept_state", "capture", "tidy", "prove_export")


class Net(torch.nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.front = torch.nn.Linear(40, 64)
        self.rnn = getattr(torch.nn, kind)(64, 128, 2, batch_first=True)
        self.head = torch.nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.head(self.rnn(self.front(x))[0])
        return y


def main() -> None:
    print(f"torch {torch.__version__}, {ROUNDS} rounds, medians in seconds")
    rows = [_row(kind) for kind in ("GRU", "LSTM")]  # torch's freezes the length of nn.RNN
    print(render(("network", "torch.onnx", "rnnx", "rnnx/torch", *PARTS), rows))


def _row(kind: str) -> tuple[str, ...]:
    model = Net(kind).eval()
    args = (torch.randn(2, 11, 40),)
    names = {"x": {0: "batch", 1: "time"}}
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    with tempfile.TemporaryDirectory() as folder, _timed_parts(parts):
        path = Path(folder) / "net.onnx"
        ours, theirs = [], []
        for _ in range(ROUNDS + 1):
            theirs.append(_seconds(lambda: _torchs(model, args, names)))
            ours.append(_seconds(lambda: rnnx.export(model, args, path, dynamic_shapes=names)))
    ratio = statistics.median(a / b for a, b in zip(ours[1:], theirs[1:], strict=True))
    shown = [statistics.median(values[1:]) for values in (theirs, ours)]
    inner = [statistics.median(parts[name][1:]) for name in PARTS]
    return (
        f"2 x {kind} 128",
        *(f"{value:.2f}" for value in shown),
        f"{ratio:.2f}",
        *(f"{value:.2f}" for value in inner),
    )


def _torchs(model: torch.nn.Module, args: tuple[torch.Tensor], names: object) -> None:
    # Without this its second export in a process fails: it finds a stale kernel that freezes time.
    for function in (torch.ops.aten.gru.input, torch.ops.aten.lstm.input):
        function._dispatch_cache.clear()
    torch.onnx.export(model, args, dynamo=True, dynamic_shapes=names, verbose=False)  # type: ignore


def _seconds(run: Callable[[], object]) -> float:
    logging.disable(logging.CRITICAL)
    start = time.perf_counter()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        run()
    return time.perf_counter() - start


@contextlib.contextmanager
def _timed_parts(parts: dict[str, list[float]]):  # type: ignore[no-untyped-def]
    """Time the steps of an export where the door calls them."""
    with contextlib.ExitStack() as stack:
        for name, taken in parts.items():
            function = getattr(torch_export, name)
            stack.enter_context(mock.patch.object(torch_export, name, _timer(function, taken)))
        yield


def _timer(function: Callable[..., object], taken: list[float]) -> Callable[..., object]:
    def timed(*args: object, **kwargs: object) -> object:
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            taken.append(time.perf_counter() - start)

    return timed


if __name__ == "__main__":
    main()

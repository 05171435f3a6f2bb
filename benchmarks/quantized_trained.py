"""What each level of quantization costs networks that were trained: bytes, time, and what they do.

The networks of `trained.py` are quantized with calibration data from what they were trained on, and
stream the first part of what was held out, one frame at a time. *Times as fast* is against the
float32 artifact in turn: through `Stream.feed`, and in onnxruntime alone, where the graph that a
step runs is held against the graph of the native float32 operator. The forecaster adds what it
learned to its input, so its SNR says little.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort
import torch
from conditions import on_one_core
from trained import FOLDER, NETS, Array, Series, available, trained

import rnnx
from rnnx.bench import Timing, measure
from rnnx.quantization.levels import LEVELS
from rnnx.table import render
from rnnx_runtime.session import open_session

FRAMES = 8000  # at most: held-out frames that are streamed, and frames to calibrate with
SECONDS = 2.0
SIZE = ["network", "level", "KB", "times smaller"]
TIME = ["feed us", "times as fast", "in onnxruntime us", "times as fast as the operator"]
QUALITY = [
    "network",
    "level",
    "held-out frames",
    "SNR dB",
    "top-1 agreement",
    "bpc or MSE",
    "change",
]


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=FOLDER, show_default=True)
@click.option("--net", "names", multiple=True, type=click.Choice(list(NETS)), help="Repeatable.")
def main(folder: Path, names: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    on_one_core()
    costs, qualities = [], []
    for name in names or available():
        tell(f"{name} ...")
        series = [first(part) for part in NETS[name].series().parts()]
        with tempfile.TemporaryDirectory() as scratch:
            paths = write_levels(name, folder, Path(scratch), series[0])
            found = {level: streamed(path, series[1].x) for level, path in paths.items()}
            costs += rows_of_costs(name, paths, series[1].x)
        qualities += rows_of_quality(name, found, series[1].target)
    print(render(SIZE + TIME, costs))
    print(f"\n{render(QUALITY, qualities)}")


def first(series: Series) -> Series:
    return Series(series.x[:FRAMES], series.target[:FRAMES])


def write_levels(name: str, folder: Path, scratch: Path, train: Series) -> dict[str, Path]:
    """The network's file at every level, float32 first."""
    paths = {level: scratch / f"{level}.onnx" for level in ("float32", *LEVELS)}
    example = (torch.from_numpy(train.x[None, :20]),)
    rnnx.export(trained(name, folder), example, paths["float32"], streaming=True)
    for level in LEVELS:
        rnnx.quantize(paths["float32"], paths[level], level=level, calibration=train.x[None])
    return paths


def streamed(path: Path, x: Array) -> Array:
    """What comes out for the frames, fed one by one, `[time, ...]`."""
    stream = rnnx.Stream(path)
    return np.concatenate([stream.feed(frame[None, None])[0] for frame in x])


def rows_of_costs(name: str, paths: dict[str, Path], x: Array) -> list[list[str]]:
    frame = x[None, :1]
    streams = {level: rnnx.Stream(path) for level, path in paths.items()}
    feeds = {level: lambda stream=stream: stream.feed(frame) for level, stream in streams.items()}
    operator = bound(open_session(paths["float32"]), frame)
    steps = {level: bound(step_session(path), frame) for level, path in paths.items()}
    feeding = measure(feeds, seconds=SECONDS)
    stepping = measure({"operator": operator} | steps, seconds=SECONDS)
    return [
        [name, level, *size_of(path, paths), *time_of(feeding[level]), *time_of(stepping[level])]
        for level, path in paths.items()
    ]


def size_of(path: Path, paths: dict[str, Path]) -> list[str]:
    full, size = paths["float32"].stat().st_size, path.stat().st_size
    return [f"{size / 1024:.1f}", f"{full / size:.2f}"]


def time_of(timing: Timing) -> list[str]:
    return [f"{timing.median:.1f}", f"{1 / timing.ratio:.2f}"]


def step_session(path: Path) -> ort.InferenceSession:
    """The graph that a step of one sequence runs."""
    model = rnnx.Model(path)
    return open_session(path) if model.step is None else model.step.session


def bound(session: ort.InferenceSession, frame: Array) -> Callable[[], None]:
    """A call of onnxruntime alone: one frame of one sequence, from states of 0, on bound memory."""
    feeds = {port.name: zeros(port) for port in session.get_inputs()}
    feeds["x"] = frame.reshape(feeds["x"].shape)
    results = session.run(None, feeds)
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))
    for port, array in zip(session.get_outputs(), results, strict=True):
        binding.bind_ortvalue_output(port.name, ort.OrtValue.ortvalue_from_numpy(array))
    return lambda: session.run_with_iobinding(binding)


def zeros(port: ort.NodeArg) -> Array:
    return np.zeros([dim if isinstance(dim, int) else 1 for dim in port.shape], np.float32)


def rows_of_quality(name: str, found: dict[str, Array], target: Array) -> list[list[str]]:
    full = found["float32"]
    best = loss_of(name, full, target)
    return [
        [
            name,
            level,
            str(len(target)),
            f"{snr_db(full, outputs):.1f}" if level != "float32" else "",
            agreement(full, outputs) if target.dtype.kind == "i" else "",
            f"{(loss := loss_of(name, outputs, target)):.5g}",
            f"{100 * (loss / best - 1):+.3f} %",
        ]
        for level, outputs in found.items()
    ]


def loss_of(name: str, outputs: Array, target: Array) -> float:
    return float(NETS[name].loss(torch.from_numpy(outputs).double(), torch_target(target)))


def torch_target(target: Array) -> torch.Tensor:
    found = torch.from_numpy(target)
    return found.double() if found.is_floating_point() else found


def snr_db(expected: Array, found: Array) -> float:
    error = (found - expected).astype(np.float64)
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / (error**2).sum()))


def agreement(expected: Array, found: Array) -> str:
    return f"{100 * (expected.argmax(-1) == found.argmax(-1)).mean():.2f} %"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

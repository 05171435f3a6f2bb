"""Sequences of several lengths in one batch: each as if it were alone, whatever pads it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from rnnx.parity.report import Finding
from rnnx.parity.trial import Array, Arrays, Expected, Trial, row
from rnnx_exporters.compare import compare
from rnnx_runtime.chunks import cut
from rnnx_runtime.contract import Port
from rnnx_runtime.errors import InputError

FRAMES = 9
# Not sorted, one of them full; not sorted, none full; sorted, as some models insist on.
LENGTHS = ((5, 9, 1, 7), (3, 7, 2, 5), (9, 6, 6, 2), (8, 5, 3, 1))
PADDINGS = {"zero_padding": 0.0, "loud_padding": 1e3, "nan_padding": math.nan}


def unfit(trial: Trial) -> str | None:
    """Why the probe does not fit, if it does not."""
    if not any(port.counts_frames for port in trial.contract.inputs):
        return "the artifact takes no lengths"
    return None if trial.contract.has_free_batch else "the artifact takes one sequence"


def probe(trial: Trial) -> Iterator[Finding]:
    """Run ragged batches, padded by zeros, by loud values and by NaN, and each sequence alone.

    A batch must be torch's with the same padding, unless torch itself makes NaN of that; and each
    sequence in it must be torch's of that sequence alone, where torch's own batch is.
    """
    unit = trial.contract.first_chunk
    frames, rng = FRAMES * unit, trial.rng("ragged")
    for lengths in LENGTHS:
        feeds = trial.inputs(rng, batch=len(lengths), frames=frames)
        ends = [length * unit for length in lengths]
        for padding, content in _paddings(trial).items():
            ragged = _padded(trial, feeds, ends, content)
            run = {"batch": len(ends), "frames": frames, "shortest": min(ends), padding: 1}
            yield from _hold(trial, ragged, ends, run)


def _paddings(trial: Trial) -> dict[str, float]:
    if not trial.rounds_by_range:
        return PADDINGS
    trial.note("ragged: padding widens the range that the frames are rounded by: pad with zeros")
    return {"zero_padding": 0.0}


def _hold(trial: Trial, ragged: Arrays, ends: list[int], run: dict[str, int]) -> Iterator[Finding]:
    try:
        expected = trial.expected(ragged)
    except InputError:
        if ends == sorted(ends, reverse=True):
            raise
        trial.note("ragged: the torch model takes sorted lengths only")
        return
    if not all(np.isfinite(value).all() for value in expected.values.values()):
        trial.note("ragged: NaN behind the end of a sequence reaches the torch model's outputs")
        return
    together = trial.run(ragged)
    yield from trial.judge("ragged", together, expected, run)
    for index, length in enumerate(ends):
        yield from _hold_row(trial, ragged, (together, expected), index, run | {"length": length})


def _hold_row(
    trial: Trial,
    ragged: Arrays,
    batch: tuple[Arrays, Expected],
    index: int,
    run: dict[str, int],
) -> Iterator[Finding]:
    """One sequence of the batch against torch's of it alone, without what stands behind it."""
    contract, length = trial.contract, run["length"]
    lone = cut(contract.inputs, row(contract, ragged, index), 0, length)
    alone = trial.expected(lone)
    inside, torchs = (
        _ended(trial, row(contract, values, index), alone.values)
        for values in (batch[0], batch[1].values)
    )
    if all(compare(torchs[name], alone.values[name]).passed for name in inside):
        yield from trial.judge("ragged", inside, alone, run | {"row": index})
    else:
        trial.note("ragged: a sequence in a batch is not the sequence alone in torch itself")


def _ended(trial: Trial, values: Arrays, alone: Arrays) -> Arrays:
    """The outputs up to the end that they have alone."""
    names = [port.name for port in trial.contract.outputs]
    return {name: values[name][tuple(map(slice, alone[name].shape))] for name in names}


def _padded(trial: Trial, feeds: Arrays, ends: list[int], content: float) -> Arrays:
    """The inputs with these lengths, and with that behind the end of each sequence."""
    padded = {}
    for port in trial.contract.inputs:
        value = feeds[port.name].copy()
        if port.counts_frames:
            value[:] = np.reshape(ends, value.shape)
        elif port.time_axis is not None and port.batch_axis is not None:
            _pad(port, value, ends, content)
        padded[port.name] = value
    return padded


def _pad(port: Port, value: Array, ends: list[int], content: float) -> None:
    """Write behind the end of each sequence; of ids, which are no floats, the largest or 0."""
    if value.dtype.kind != "f":
        content = (port.num_embeddings or 2) - 1 if content else 0
    rows = np.moveaxis(value, (port.batch_axis or 0, port.time_axis or 0), (0, 1))
    for sequence, end in zip(rows, ends, strict=True):
        sequence[port.here(end) :] = content

"""An encoder-decoder as its two files meet it: sources, and what is written of them."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnnx.hashing import sha256_of_runs
from rnnx.quantization.calibration import (
    MOST_STEPS,
    Array,
    Calibration,
    Feeds,
    Run,
    read_calibration,
    repeated,
)
from rnnx_runtime.contract import load_contract
from rnnx_runtime.files import sha256_of_file
from rnnx_runtime.model import size_along
from rnnx_runtime.seq2seq import (
    CONTRACT,
    ENCODER,
    STEP,
    Arrays,
    Generated,
    Seq2Seq,
    load_seq2seq_contract,
)

OTHER_FILE = "the other file"
_AT_ONCE = 8  # sources that are written of side by side
_MOST = 256 << 20  # bytes of what the step takes: each row holds the memory of its source


@dataclass(frozen=True, slots=True)
class Pair:
    """An encoder-decoder of which one file is tried.

    Attributes:
        folder: the original.
        sources: what it is measured on, with labels.
        name: of the file that is tried.
        other: the other file, as it stands beside that.
    """

    folder: Path
    sources: list[Feeds]
    name: str
    other: Path

    def outputs(self, path: Path) -> Iterator[Feeds]:
        """What is written of each run of sources with the file at `path`.

        Returns:
            `ids` int64 `[batch, longest]`, filled up with the end, `lengths` int64 `[batch]`, and
            `scores` float64 `[batch]`, the sums of their log probabilities.
        """
        with tempfile.TemporaryDirectory() as folder:
            runner = Seq2Seq(self._assembled(Path(folder), path))
            for run in self.sources:
                yield _padded(runner.generate(run["src"], run["lengths"]), runner.contract.end)

    def identity(self) -> dict[str, Any]:
        """What figures hang on besides the file that is tried, by the name a person knows it by."""
        contract = load_seq2seq_contract(self.folder)
        return {
            "the sources or labels": sha256_of_runs(self.sources),
            "the contract": [contract.start, contract.end, contract.max_length],
            OTHER_FILE: load_contract(self.other).fingerprint,
        }

    def _assembled(self, folder: Path, path: Path) -> Path:
        other = STEP if self.name == ENCODER else ENCODER
        for name, file in ((self.name, path), (other, self.other)):
            shutil.copyfile(file, folder / name)
        write_contract(self.folder, folder)
        return folder


def write_contract(src: str | os.PathLike[str], dst: Path) -> None:
    """Write the contract of the folder `src` for other files in `dst`, which nothing checked."""
    contract = load_seq2seq_contract(src)
    prints = {name: sha256_of_file(dst / name) for name in (ENCODER, STEP)}
    changed = dataclasses.replace(contract, fingerprints=prints, checked={})
    (dst / CONTRACT).write_text(changed.to_json(), encoding="utf-8")


def read_sources(
    folder: str | os.PathLike[str], calibration: Calibration, *, has_labels: bool
) -> list[Feeds]:
    """The sources, as `read_calibration` reads them; without `lengths`, all frames are of them.

    Raises:
        InputError: they cannot be read, measure nothing, or do not fit the encoder.
    """
    contract = load_contract(Path(folder, ENCODER))
    return read_calibration(calibration, contract, has_labels=has_labels, complete=_with_lengths)


def step_runs(folder: str | os.PathLike[str], sources: list[Feeds]) -> list[Feeds]:
    """What the step takes while the encoder-decoder in `folder` writes of the sources, greedily.

    Returns:
        runs of one row for each source and id, up to 100,000 of them and 256 MB; of more, every
        second, third, ...

    Raises:
        InputError: a source has no frame, or the network gives NaN.
    """
    runner, encoder = _Watched(folder), load_contract(Path(folder, ENCODER))
    parts = [
        repeated(encoder, run, "batch", range(start, min(start + _AT_ONCE, size)))
        for run in sources
        for size in (size_along(encoder, run, "batch") or 1,)
        for start in range(0, size, _AT_ONCE)
    ]
    return [runner.taken(part, 1 / len(parts)) for part in parts]


class _Watched(Seq2Seq):
    """Keeps what its step takes; `generate` calls that for each id."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__(folder)
        self._steps: list[list[Array]] = []

    def taken(self, sources: Feeds, share: float) -> Feeds:
        """What the step takes for these sources: a row for each until it has ended.

        Args:
            sources: `src` and `lengths`.
            share: the part that these may have of all that is kept.
        """
        self._steps.clear()
        self.generate(sources["src"], sources["lengths"])
        row = sum(array[:1].nbytes for array in self._steps[0])
        places = self._places()
        thinned = places[:: math.ceil(len(places) / max(1, share * min(MOST_STEPS, _MOST / row)))]
        joined = [
            np.stack([self._steps[step][number][source] for step, source in thinned])
            for number in range(len(self._steps[0]))
        ]
        return dict(zip(self.contract.step_inputs, joined, strict=True))

    def _places(self) -> Array:
        """Steps and sources that had not ended before, `[rows, 2]`."""
        tokens = np.stack([token for token, *_ in self._steps])  # the first are starts
        ended = np.cumsum(tokens[1:] == self.contract.end, axis=0) > 0
        return np.argwhere(np.concatenate([np.full((1, tokens.shape[1]), True), ~ended]))

    def step(
        self, token: Array, state: Sequence[Array], memory: Sequence[Array]
    ) -> tuple[Array, Arrays]:
        """See `Seq2Seq.step`."""
        self._steps.append([token, *state, *memory])
        return super().step(token, state, memory)


def _padded(written: Generated, end: int) -> Feeds:
    lengths = np.array([len(ids) for ids in written.ids], np.int64)
    ids = np.full((len(lengths), max(lengths, default=0)), end, np.int64)
    for row, found in zip(ids, written.ids, strict=True):
        row[: len(found)] = found
    return {"ids": ids, "lengths": lengths, "scores": written.scores}


def _with_lengths(run: Run) -> Run:
    named = dict(run) if isinstance(run, Mapping) else {"src": run}
    shape = np.shape(named.get("src", ()))
    if shape and "lengths" not in named:
        named["lengths"] = np.full(shape[0], (*shape, 0)[1], np.int64)
    return named

"""Every kind of recurrent layer, exported once and held against torch at other sizes.

All 128 cases run with the mark `full`; those that together show every pair of options run always.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

import rnnx
from exportable import OPERATORS, dims, flat, hold, plain_run, recurrent, torch_run

FEATURES, HIDDEN_SIZE = 3, 4
SIZES = ((3, 7), (1, 1), (4, 23))


@dataclass(frozen=True)
class Case:
    kind: str
    layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    explicit: bool

    def __str__(self) -> str:
        flags = [
            name
            for name in ("bidirectional", "bias", "batch_first", "explicit")
            if getattr(self, name)
        ]
        return "-".join([self.kind, str(self.layers), *flags])

    def pairs(self) -> set[tuple[Any, ...]]:
        """Each two of its options."""
        return set(itertools.combinations(enumerate(astuple(self)), 2))

    def module(self) -> torch.nn.RNNBase:
        torch.manual_seed(0)
        return recurrent(
            self.kind,
            FEATURES,
            HIDDEN_SIZE,
            num_layers=self.layers,
            bidirectional=self.bidirectional,
            bias=self.bias,
            batch_first=self.batch_first,
        )

    def args(self, batch: int, frames: int) -> tuple[Any, ...]:
        """Random arguments, states among them where they are explicit."""
        leading = (batch, frames) if self.batch_first else (frames, batch)
        x = torch.randn(*leading, FEATURES)
        if not self.explicit:
            return (x,)
        rows = self.layers * (2 if self.bidirectional else 1)
        states = [torch.randn(rows, batch, HIDDEN_SIZE) for _ in range(self.states)]
        return (x, tuple(states) if self.kind == "lstm" else states[0])

    @property
    def states(self) -> int:
        return 2 if self.kind == "lstm" else 1


def covering(cases: list[Case]) -> Iterator[Case]:
    """Cases that together show every pair of options, each the one that shows most new ones."""
    missing = set[tuple[Any, ...]]().union(*(case.pairs() for case in cases))
    while missing:
        best = max(cases, key=lambda case: len(case.pairs() & missing))
        missing -= best.pairs()
        yield best


BOTH = (False, True)
CASES = list(itertools.starmap(Case, itertools.product(OPERATORS, (1, 3), BOTH, BOTH, BOTH, BOTH)))
SAMPLE = set(covering(CASES))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=str(c), marks=() if c in SAMPLE else pytest.mark.full) for c in CASES],
)
def test_one_export_equals_torch_at_every_size(tmp_path: Path, case: Case) -> None:
    path, module = tmp_path / "model.onnx", case.module()
    rnnx.export(module, case.args(batch=2, frames=5), path)
    for batch, frames in SIZES:
        args = case.args(batch, frames)
        hold(plain_run(path, *args), torch_run(module, *args))
    graph = onnx.load(path).graph
    hold_native(graph, case)
    hold_free(graph, case)


def hold_native(graph: onnx.GraphProto, case: Case) -> None:
    """One native operator for each layer, its weights plain initializers."""
    nodes = [node for node in graph.node if node.op_type in ("RNN", "GRU", "LSTM")]
    assert [node.op_type for node in nodes] == [OPERATORS[case.kind]] * case.layers
    initializers = {initializer.name for initializer in graph.initializer}
    for node in nodes:
        weights = set(node.input[1:4]) if case.bias else set(node.input[1:3])
        assert weights <= initializers


def hold_free(graph: onnx.GraphProto, case: Case) -> None:
    """Batch and time are named at every input and output, and nothing else is free."""
    leading = ("batch", "time") if case.batch_first else ("time", "batch")
    directions = 2 if case.bidirectional else 1
    state = (case.layers * directions, "batch", HIDDEN_SIZE)
    states = [state] * case.states
    assert dims(graph.input) == [(*leading, FEATURES), *(states if case.explicit else [])]
    assert dims(graph.output) == [(*leading, directions * HIDDEN_SIZE), *states]
    assert len(graph.input) == len(flat(case.args(2, 2)))

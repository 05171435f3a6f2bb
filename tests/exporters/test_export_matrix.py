"""Every kind of recurrent layer, exported once and held against torch at other sizes.

All 768 cases run in `make test-all`; those that together show every pair of options run always.
The 192 cases that PyTorch tests its own exporter with are among them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnx
from exportable import OPERATORS, dims, hold, plain_run, recurrent, torch_run

FEATURES, HIDDEN_SIZE = 3, 4
EXAMPLE = (5, (5, 2), 0.0)
# Frames, a length for each sequence of the batch, and what stands behind it where it is packed.
RUNS = ((7, (4, 7, 2), math.nan), (1, (1,), 0.0), (23, (2, 19, 9, 1), 1e3), (2, (1, 2), 0.0))

# A dropout between layers is given to a single layer too, as PyTorch's cases do.
pytestmark = pytest.mark.filterwarnings("ignore:dropout option adds dropout")


@dataclass(frozen=True)
class Case:
    kind: str
    layers: int
    bidirectional: bool
    bias: bool
    batch_first: bool
    explicit: bool
    packed: bool
    dropout: float

    def __str__(self) -> str:
        flags = ("bidirectional", "bias", "batch_first", "explicit", "packed", "dropout")
        return "-".join([self.kind, str(self.layers), *(f for f in flags if getattr(self, f))])

    def pairs(self) -> set[tuple[Any, ...]]:
        """Each two of its options."""
        return set(itertools.combinations(enumerate(astuple(self)), 2))

    def args(self, frames: int, lengths: tuple[int, ...], padding: float) -> tuple[Any, ...]:
        """Random arguments; states where they are explicit, lengths where `x` is packed."""
        batch = len(lengths)
        x = torch.randn(batch, frames, FEATURES)
        if self.packed:
            for row, length in zip(x, lengths, strict=True):
                row[length:] = padding
        states = [torch.randn(*self.state_shape(batch)) for _ in range(self.states)]
        hx = tuple(states) if self.kind == "lstm" else states[0]
        return (
            x if self.batch_first else x.transpose(0, 1).contiguous(),
            *([hx] if self.explicit else [None] if self.packed else []),
            *([torch.tensor(lengths)] if self.packed else []),
        )

    def leading(self, frames: str = "time") -> tuple[str, str]:
        """The names of the first two axes of a sequence."""
        return ("batch", frames) if self.batch_first else (frames, "batch")

    def state_shape(self, batch: int | str) -> tuple[int | str, ...]:
        return (self.layers * self.directions, batch, HIDDEN_SIZE)

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def states(self) -> int:
        return 2 if self.kind == "lstm" else 1


class Network(nn.Module):
    """The layer of a case, its input packed where the case says so, dropout in it and behind it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.batch_first = case.batch_first
        self.rnn = recurrent(
            case.kind,
            FEATURES,
            HIDDEN_SIZE,
            num_layers=case.layers,
            bidirectional=case.bidirectional,
            bias=case.bias,
            batch_first=case.batch_first,
            dropout=case.dropout,
        )
        self.drop = nn.Dropout(case.dropout)

    def forward(self, x: Any, hx: Any = None, lengths: Tensor | None = None) -> Any:
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, self.batch_first, enforce_sorted=False)
        y, final = self.rnn(x, hx)
        if lengths is not None:
            y, _ = pad_packed_sequence(y, self.batch_first)
        return self.drop(y), final


def covering(cases: list[Case]) -> Iterator[Case]:
    """Cases that together show every pair of options, each the one that shows most new ones."""
    missing = set[tuple[Any, ...]]().union(*(case.pairs() for case in cases))
    while missing:
        best = max(cases, key=lambda case: len(case.pairs() & missing))
        missing -= best.pairs()
        yield best


BOTH = (False, True)
OPTIONS = (OPERATORS, (1, 2, 3), BOTH, BOTH, BOTH, BOTH, BOTH, (0.0, 0.2))
CASES = list(itertools.starmap(Case, itertools.product(*OPTIONS)))
SAMPLE = set(covering(CASES))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=str(c), marks=() if c in SAMPLE else pytest.mark.full) for c in CASES],
)
def test_one_export_equals_torch_at_every_size(tmp_path: Path, case: Case) -> None:
    torch.manual_seed(0)
    path, module = tmp_path / "model.onnx", Network(case)
    rnnx.export(module, case.args(*EXAMPLE), path, dynamic_shapes=axes(case))
    for run in RUNS:
        args = case.args(*run)
        given = [arg for arg in args if arg is not None]
        hold(plain_run(path, *given), torch_run(module, *args))
    hold_graph(onnx.load(path).graph, case)


def axes(case: Case) -> Any:
    """The free axes; they are found where nothing is packed."""
    if not case.packed:
        return None
    state = {1: "batch"}
    hx = (state, state) if case.kind == "lstm" else state
    return {"x": case.leading(), "hx": hx if case.explicit else None, "lengths": {0: "batch"}}


def hold_graph(graph: onnx.GraphProto, case: Case) -> None:
    hold_native(graph, case)
    hold_free(graph, case)


def hold_native(graph: onnx.GraphProto, case: Case) -> None:
    """One native operator for each layer, its weights plain initializers."""
    nodes = [node for node in graph.node if node.op_type in ("RNN", "GRU", "LSTM")]
    assert [node.op_type for node in nodes] == [OPERATORS[case.kind]] * case.layers
    initializers = {initializer.name for initializer in graph.initializer}
    for node in nodes:
        assert {name for name in node.input[1:4] if name} <= initializers
        assert (bool(node.input[3]), bool(node.input[4])) == (case.bias, case.packed)


def hold_free(graph: onnx.GraphProto, case: Case) -> None:
    """Batch and time are named at every input and output, and nothing else is free."""
    states = [case.state_shape("batch")] * case.states
    given = [*(states if case.explicit else []), *([("batch",)] if case.packed else [])]
    assert dims(graph.input) == [(*case.leading(), FEATURES), *given]
    y, *finals = dims(graph.output)
    frames = y[1 if case.batch_first else 0]  # as many as the longest sequence has
    assert isinstance(frames, str)
    assert (frames == "time") is not case.packed
    assert y == (*case.leading(frames), HIDDEN_SIZE * case.directions)
    assert finals == states


@pytest.fixture(scope="module")
def case_and_graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, onnx.GraphProto]:
    case, path = Case("gru", 1, False, True, True, True, False, 0.0), tmp_path_factory.mktemp("one")
    rnnx.export(Network(case), case.args(*EXAMPLE), path / "model.onnx")
    graph = onnx.load(path / "model.onnx").graph
    hold_graph(graph, case)
    return case, graph


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "lstm"},
        {"layers": 2},
        {"bidirectional": True},
        {"bias": False},
        {"batch_first": False},
        {"explicit": False},
        {"packed": True},
    ],
)
def test_a_graph_of_another_case_is_told(case_and_graph: Any, change: dict[str, Any]) -> None:
    case, graph = case_and_graph
    with pytest.raises(AssertionError):
        hold_graph(graph, replace(case, **change))


def pytorchs(
    kind: str,
    layers: int,
    bidirectional: bool,
    initial_state: bool,
    packed_sequence: int,
    dropout: float,
) -> Case:
    """Our case for the parameters of `test_rnn` in its `test_pytorch_onnx_onnxruntime.py`.

    `packed_sequence` is 0 where nothing is packed, 1 for time first, and 2 for batch first.
    """
    return Case(
        kind,
        layers,
        bidirectional,
        bias=True,
        batch_first=packed_sequence == 2,
        explicit=initial_state,
        packed=packed_sequence > 0,
        dropout=dropout,
    )


def test_pytorchs_own_cases_are_among_them() -> None:
    parameters = itertools.product(OPERATORS, (1, 3), BOTH, BOTH, (0, 1, 2), (0.2, 0.0))
    theirs = set(itertools.starmap(pytorchs, parameters))
    assert len(theirs) == 192
    assert theirs <= set(CASES)


def test_every_pair_of_options_is_in_the_sample() -> None:
    assert len(set(CASES)) == 768
    for one, other in itertools.combinations(range(len(OPTIONS)), 2):
        wanted = set(itertools.product(OPTIONS[one], OPTIONS[other]))
        assert {(astuple(case)[one], astuple(case)[other]) for case in SAMPLE} == wanted

"""Encoder-decoders from torch, exported, held against torch itself in Python loops."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import rnnx
from attending import weights, write_folder
from rnnx_exporters import artifact
from rnnx_exporters.layout import BATCH, TIME, Layout
from rnnx_exporters.seq2seq_loop import greedy_graph
from rnnx_exporters.seq2seq_proof import prove_generation, prove_loop
from searching import beam_search, exhaustive_search

SOURCE_IDS, VOCABULARY, FEATURES, HIDDEN = 11, 5, 4, 8
START, END, MAX_LENGTH = 1, 2, 7
FILES = {"contract.json", "encoder.onnx", "step.onnx"}
IDS = {"start": START, "end": END, "max_length": MAX_LENGTH}


class _Attending(nn.Module):
    """A packed bidirectional GRU, additive attention with a mask, a GRUCell."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(SOURCE_IDS, FEATURES)
        self.target = nn.Embedding(VOCABULARY, FEATURES)
        self.encoder = nn.GRU(FEATURES, HIDDEN // 2, batch_first=True, bidirectional=True)
        self.bridge = nn.Linear(HIDDEN, HIDDEN)
        self.key, self.query = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.energy = nn.Linear(HIDDEN, 1)
        self.cell = nn.GRUCell(FEATURES + HIDDEN, HIDDEN)
        self.head = nn.Linear(2 * HIDDEN, VOCABULARY)

    def encode(self, src: Tensor, lengths: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        packed = pack_padded_sequence(
            self.source(src), lengths, batch_first=True, enforce_sorted=False
        )
        y, h = self.encoder(packed)
        values, _ = pad_packed_sequence(y, batch_first=True)
        mask = torch.arange(values.shape[1]) < lengths[:, None]
        memory = {"values": values, "keys": self.key(values), "mask": mask}
        return memory, torch.tanh(self.bridge(torch.cat([h[0], h[1]], 1)))

    def step(
        self, token: Tensor, state: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        energies = self.energy(torch.tanh(memory["keys"] + self.query(state)[:, None]))[..., 0]
        weights = energies.masked_fill(~memory["mask"], -torch.inf).softmax(1)
        context = (weights[..., None] * memory["values"]).sum(1)
        state = self.cell(torch.cat([self.target(token), context], 1), state)
        return self.head(torch.cat([state, context], 1)), state


class _Layered(nn.Module):
    """Features into a two-layer LSTM, its states on to an LSTM of one frame; no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.target = nn.Embedding(VOCABULARY, FEATURES)
        self.encoder = nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True)
        self.decoder = nn.LSTM(FEATURES, HIDDEN, 2, batch_first=True)
        self.head = nn.Linear(HIDDEN, VOCABULARY)

    def encode(self, src: Tensor, lengths: Tensor) -> tuple[Any, Any]:
        packed = pack_padded_sequence(src, lengths, batch_first=True, enforce_sorted=False)
        _, state = self.encoder(packed)
        return (), state

    def step(self, token: Tensor, state: Any, memory: Any) -> tuple[Tensor, Any]:
        y, state = self.decoder(self.target(token)[:, None], state)
        return self.head(y[:, 0]), state


class _Plain(nn.Module):
    """The last state of a tanh RNN, for an LSTMCell; tensors pass through, twice, and unused."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(SOURCE_IDS, FEATURES)
        self.target = nn.Embedding(VOCABULARY, FEATURES)
        self.encoder = nn.RNN(FEATURES, HIDDEN)
        self.cell = nn.LSTMCell(FEATURES + HIDDEN, HIDDEN)
        self.head = nn.Linear(HIDDEN, VOCABULARY)

    def encode(self, src: Tensor, lengths: Tensor) -> tuple[Any, Any]:
        y, _ = self.encoder(self.source(src).transpose(0, 1))
        last = y[lengths - 1, torch.arange(src.shape[0])]
        steps = {"steps": torch.zeros_like(lengths), "cell": (last, last)}
        return [last, src, lengths], steps

    def step(self, token: Tensor, state: Any, memory: Any) -> tuple[Tensor, Any]:
        h, c = self.cell(torch.cat([self.target(token), memory[0]], 1), state["cell"])
        logits = self.head(h) - 0.1 * (state["steps"] % 3)[:, None] * h[:, :VOCABULARY]
        return logits, {"cell": [h, c], "steps": state["steps"] + 1}


def _sources(model: nn.Module, batch: int, frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model, _Layered):
        return torch.randn(batch, frames, FEATURES, generator=generator)
    return torch.randint(0, SOURCE_IDS, (batch, frames), generator=generator)


SEEDS = {_Attending: 1, _Layered: 10, _Plain: 6}


def _made(kind: type[nn.Module]) -> nn.Module:
    """With weights under which the sources differ in what they give, and in its length."""
    torch.manual_seed(SEEDS[kind])
    model = kind().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=1.5)
    return model


@dataclasses.dataclass(frozen=True)
class _Exported:
    model: Any
    folder: Path
    contract: Any
    runner: rnnx.Seq2Seq

    @torch.no_grad()
    def log_probs(self, source: Tensor) -> Callable[[tuple[int, ...]], list[float]]:
        """Of the next id after a prefix, for one source alone, from torch."""
        memory, first = self.model.encode(source[None], torch.tensor([len(source)]))

        @functools.cache
        @torch.no_grad()
        def step(prefix: tuple[int, ...]) -> tuple[list[float], Any]:
            state = step(prefix[:-1])[1] if prefix else first
            token = torch.tensor([prefix[-1] if prefix else START])
            logits, state = self.model.step(token, state, memory)
            return logits[0].double().log_softmax(0).tolist(), state

        return lambda prefix: step(prefix)[0]


@pytest.fixture(scope="module", params=[_Attending, _Layered, _Plain])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Exported:
    model = _made(request.param)
    folder = tmp_path_factory.mktemp("exported") / "model"
    write_folder(folder, weights())  # an earlier export, whose place is taken
    example = (_sources(model, 3, 6), torch.tensor([6, 2, 4]))
    contract = rnnx.export_seq2seq(model, example, folder, **IDS, single_file=True)
    return _Exported(model, folder, contract, rnnx.Seq2Seq(folder))


LENGTHS = st.lists(st.integers(1, 12), min_size=1, max_size=4)


@settings(max_examples=25)
@given(lengths=LENGTHS, beam=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_source_is_decoded_as_torch_decodes_it_alone(
    exported: _Exported, lengths: list[int], beam: int, seed: int
) -> None:
    src = _sources(exported.model, len(lengths), max(lengths) + seed % 2, seed)
    ids, scores = exported.runner.generate(src.numpy(), np.array(lengths), beam=beam)
    for row, length in enumerate(lengths):
        log_probs = exported.log_probs(src[row, :length])
        expected = beam_search(log_probs, end=END, beam=beam, max_length=MAX_LENGTH)
        assert ids[row].tolist() == expected[0]
        assert scores[row] == pytest.approx(expected[1], rel=1e-4)


@settings(max_examples=3)
@given(length=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_wide_enough_beam_finds_the_optimum(exported: _Exported, length: int, seed: int) -> None:
    src = _sources(exported.model, 1, length, seed)
    expected = exhaustive_search(
        exported.log_probs(src[0]), vocabulary=VOCABULARY, end=END, max_length=4
    )
    ids, scores = exported.runner.generate(src.numpy(), beam=VOCABULARY**4, max_length=4)
    assert ids[0].tolist() == expected[0]
    assert scores[0] == pytest.approx(expected[1], rel=1e-4)


@settings(max_examples=25)
@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_the_single_file_gives_the_same_padded_with_the_end(
    exported: _Exported, lengths: list[int], seed: int
) -> None:
    src = _sources(exported.model, len(lengths), max(lengths), seed)
    ids, scores = exported.runner.generate(src.numpy(), np.array(lengths))
    session = rnnx.Model(exported.folder / "greedy.onnx").session  # as any host would run it
    rows, found = session.run(["ids", "scores"], {"src": src.numpy(), "lengths": lengths})
    steps = min(MAX_LENGTH, max(len(row) for row in ids) + 1)
    padded = [[*row.tolist(), *[END] * (steps - len(row))] for row in ids]
    assert rows.tolist() == padded
    np.testing.assert_allclose(found, scores, rtol=1e-4)


def test_sources_differ_in_what_they_give(exported: _Exported) -> None:
    """Else the tests above could not tell one source or length from another."""
    src = _sources(exported.model, 16, 7)
    ids, _ = exported.runner.generate(src.numpy(), np.arange(16) % 7 + 1)
    assert len({tuple(row) for row in ids}) > 4
    assert len({len(row) for row in ids}) > 2


def test_the_folder_is_plain_onnx_with_native_nodes_and_free_axes(exported: _Exported) -> None:
    assert {path.name for path in exported.folder.iterdir()} == FILES | {"greedy.onnx"}
    recurrent = {
        name: {
            key: count
            for key, count in rnnx.load_contract(exported.folder / name).operators.items()
            if key in ("GRU", "LSTM", "RNN")
        }
        for name in ("encoder.onnx", "step.onnx", "greedy.onnx")
    }
    expected = {
        _Attending: ({"GRU": 1}, {"GRU": 1}, {"GRU": 2}),
        _Layered: ({"LSTM": 2}, {"LSTM": 2}, {"LSTM": 4}),
        _Plain: ({"RNN": 1}, {"LSTM": 1}, {"RNN": 1, "LSTM": 1}),
    }
    assert tuple(recurrent.values()) == expected[type(exported.model)]
    for path in exported.folder.glob("*.onnx"):
        onnx.checker.check_model(path, full_check=True)
    encoder = rnnx.load_contract(exported.folder / "encoder.onnx")
    assert encoder.inputs[0].dims[:2] == ("batch", "time")
    free = {dim for port in encoder.outputs for dim in port.dims if isinstance(dim, str)}
    assert free <= {"batch", "time", "memory_time"}


def test_the_contract_says_what_was_exported(exported: _Exported) -> None:
    contract = exported.contract
    assert contract == exported.runner.contract
    found = (contract.start, contract.end, contract.max_length, contract.vocabulary_size)
    assert found == (START, END, MAX_LENGTH, VOCABULARY)
    counts = {_Attending: (3, 1), _Layered: (0, 2), _Plain: (3, 3)}
    assert (len(contract.memory), len(contract.states)) == counts[type(exported.model)]
    assert 0 < contract.checked["max_abs_difference"] < 1e-5


def _layout(model: nn.Module) -> Layout:
    example = (_sources(model, 3, 6), torch.tensor([6, 2, 4]))
    return Layout(example, ({0: BATCH, 1: TIME}, {0: BATCH}), frozenset({1}))


class _Runs(nn.Module):
    """A model's encoder as a module."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, src: Tensor, lengths: Tensor) -> Any:
        return self.model.encode(src, lengths)


def test_the_proof_catches_a_weight_that_differs(exported: _Exported) -> None:
    layout = _layout(exported.model)
    with torch.no_grad():
        prove_generation(exported.model, _Runs(exported.model), exported.runner, layout)
        model = copy.deepcopy(exported.model)
        model.target.weight[START, 0] += 0.01
        with pytest.raises(rnnx.ExportError, match="the logits of step 0 differ"):
            prove_generation(model, _Runs(model), exported.runner, layout)


def test_the_proof_catches_lengths_that_are_not_heeded(exported: _Exported) -> None:
    layout = _layout(exported.model)
    model = copy.deepcopy(exported.model)
    encode = model.encode
    model.encode = lambda src, lengths: encode(src, torch.full_like(lengths, src.shape[1]))
    with torch.no_grad(), pytest.raises(rnnx.ExportError, match="the logits of step 0 differ"):
        prove_generation(model, _Runs(model), exported.runner, layout)


def test_the_proof_catches_a_state_that_is_not_carried(
    exported: _Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = exported.runner.step
    monkeypatch.setattr(
        exported.runner, "step", lambda token, state, memory: (step(token, state, memory)[0], state)
    )
    with torch.no_grad(), pytest.raises(rnnx.ExportError, match="the logits of step 1 differ"):
        prove_generation(
            exported.model, _Runs(exported.model), exported.runner, _layout(exported.model)
        )


def test_the_proof_catches_a_search_that_is_wrong(
    exported: _Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate = exported.runner.generate

    def reversed_ids(*args: Any, **kwargs: Any) -> Any:
        ids, scores = generate(*args, **kwargs)
        return [row[::-1] for row in ids], scores

    monkeypatch.setattr(exported.runner, "generate", reversed_ids)
    with torch.no_grad(), pytest.raises(rnnx.ExportError, match="instead of"):
        prove_generation(
            exported.model, _Runs(exported.model), exported.runner, _layout(exported.model)
        )


@pytest.mark.parametrize("change", [{"end": 3}, {"start": 0}, {"max_length": 2}])
def test_the_proof_catches_a_loop_that_is_wrong(
    exported: _Exported, tmp_path: Path, change: dict[str, int]
) -> None:
    graphs = [artifact.load_graph(exported.folder / name) for name in ("encoder.onnx", "step.onnx")]
    wrong = greedy_graph(*graphs, dataclasses.replace(exported.contract, **change))
    contract = rnnx.load_contract(exported.folder / "greedy.onnx")
    wrong.metadata_props["rnnx.contract"] = contract.to_json()
    path = tmp_path / "greedy.onnx"
    artifact.save(wrong, path)
    with torch.no_grad(), pytest.raises(rnnx.ExportError, match="instead of"):
        prove_loop(path, _Runs(exported.model), exported.runner, _layout(exported.model))


class _Small(nn.Module):
    """The least an encoder-decoder can be, for tests that change one thing about it."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        super().__init__()
        self.target = nn.Embedding(VOCABULARY, FEATURES)
        self.head = nn.Linear(FEATURES, VOCABULARY)
        for name, method in methods.items():
            setattr(self, name, method)

    def encode(self, src: Tensor, lengths: Tensor) -> Any:
        return src, src.sum(1)

    def step(self, token: Tensor, state: Any, memory: Any) -> Any:
        state = state + self.target(token)
        return self.head(state), state


def _loop_over_frames(src: Tensor, lengths: Tensor) -> Any:
    state = torch.zeros_like(src[:, 0])
    for frame in range(src.shape[1]):
        state = torch.tanh(state + src[:, frame])
    return src, state


def _random_step(token: Tensor, state: Tensor, memory: Tensor) -> Any:
    return torch.rand(token.shape[0], VOCABULARY), state + 1


SRC, GIVEN_LENGTHS = torch.ones(2, 3, FEATURES), torch.tensor([3, 1])


def _give(memory: Any, state: Any) -> Callable[..., Any]:
    return lambda src, lengths: (memory(src), state(src))


def _step_to(change: Callable[[Tensor, Tensor], Any]) -> Callable[..., Any]:
    return lambda token, state, memory: change(torch.zeros(len(token), VOCABULARY), state)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"encode": None}, "no method 'encode'"),
        ({"step": 3}, "no method 'step'"),
        ({"encode": lambda src, lengths: src}, "encode fails on src of shape"),
        ({"encode": lambda src: (src, src)}, "encode fails on src of shape"),
        ({"encode": _give(lambda x: x, lambda x: (x[0], x))}, r"state\[0\] has no axis"),
        ({"encode": _give(lambda x: x, lambda x: [x, 1])}, r"state\[1\] is of type int"),
        ({"encode": _give(lambda x: {"a": x[:1]}, lambda x: x)}, r"memory\['a'\] has no axis"),
        ({"encode": _give(lambda x: x.repeat(2, 1, 1), lambda x: x)}, "memory has no axis"),
        ({"encode": _give(lambda x: (), lambda x: ())}, "neither memory nor state"),
        ({"step": lambda token, state: 0}, "step fails on the first token"),
        ({"step": _step_to(lambda y, s: (y[0], s))}, r"logits of shape \[5\], not"),
        ({"step": _step_to(lambda y, s: (y, (s, s)))}, r"but step state\[0\], state\[1\]"),
        ({"step": _step_to(lambda y, s: (y, s[:, :2]))}, "returns it"),
        ({"step": _step_to(lambda y, s: (y, s.double()))}, "float64"),
        ({"encode": _loop_over_frames}, "freezes a free axis at .*for frame in range"),
        ({"step": _random_step}, "differs? from the model"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_nothing_is_written(
    tmp_path: Path, methods: dict[str, Any], message: str
) -> None:
    model = _Small(**methods)
    write_folder(tmp_path / "model", weights())
    before = _contents(tmp_path)
    with pytest.raises(rnnx.ExportError, match=message):
        rnnx.export_seq2seq(model, (SRC, GIVEN_LENGTHS), tmp_path / "model", **IDS)
    assert _contents(tmp_path) == before


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("example", "changes", "message"),
    [
        (SRC, {}, "not a pair"),
        ((SRC,), {}, "not a pair"),
        ((SRC.numpy(), GIVEN_LENGTHS), {}, "src is not a tensor"),
        ((SRC[:, 0, 0], GIVEN_LENGTHS), {}, "src is not a tensor"),
        ((SRC[:0], GIVEN_LENGTHS[:0]), {}, "src is not a tensor"),
        ((SRC, [3, 1]), {}, "lengths are not an int64 tensor"),
        ((SRC, GIVEN_LENGTHS.int()), {}, "lengths are not an int64 tensor"),
        ((SRC, GIVEN_LENGTHS[:1]), {}, r"lengths \[3\] do not fit"),
        ((SRC, GIVEN_LENGTHS + 1), {}, r"lengths \[4, 2\] do not fit"),
        ((SRC, GIVEN_LENGTHS - 1), {}, r"lengths \[2, 0\] do not fit"),
        ((SRC, GIVEN_LENGTHS), {"start": -1}, "start is -1"),
        ((SRC, GIVEN_LENGTHS), {"start": 1.0}, "start is 1.0"),
        ((SRC, GIVEN_LENGTHS), {"end": True}, "end is True"),
        ((SRC, GIVEN_LENGTHS), {"end": VOCABULARY}, "end is 5, but there are 5 ids"),
        ((SRC, GIVEN_LENGTHS), {"max_length": 0}, "max_length is 0"),
    ],
)
def test_a_bad_argument_is_refused(
    tmp_path: Path, example: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(rnnx.InputError, match=message):
        rnnx.export_seq2seq(_Small(), example, tmp_path / "model", **IDS | changes)
    assert not list(tmp_path.iterdir())


def test_a_foreign_folder_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "contract.json").write_text("{}")
    write_folder(tmp_path / "more", weights())
    (tmp_path / "more" / "results.txt").write_text("mine too")
    before = _contents(tmp_path)
    for name in ("file", "notes", "more"):
        with pytest.raises(rnnx.ArtifactError, match="something else"):
            rnnx.export_seq2seq(_Small(), (SRC, GIVEN_LENGTHS), tmp_path / name, **IDS)
    with pytest.raises(rnnx.ArtifactError, match="no folder"):
        rnnx.export_seq2seq(_Small(), (SRC, GIVEN_LENGTHS), tmp_path / "a" / "b", **IDS)
    assert _contents(tmp_path) == before


class _Cell(nn.Module):
    """One frame of a cell, its state taken and given."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Any:
        return self.cell(x, (h, c) if isinstance(self.cell, nn.LSTMCell) else h + c)


@pytest.mark.parametrize(
    ("cell", "operator"),
    [
        (nn.GRUCell(3, 4), "GRU"),
        (nn.LSTMCell(3, 4, bias=False), "LSTM"),
        (nn.RNNCell(3, 4), "RNN"),
        (nn.RNNCell(3, 4, bias=False, nonlinearity="relu"), "RNN"),
    ],
)
def test_a_cell_becomes_one_native_node(tmp_path: Path, cell: nn.Module, operator: str) -> None:
    model, path = _Cell(cell), tmp_path / "cell.onnx"
    example = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    contract = rnnx.export(model, example, path, dynamic_shapes=[{0: "batch"}] * 3)
    assert contract.operators[operator] == 1
    assert not contract.operators.keys() & {"Gemm", "MatMul", "Sigmoid", "Tanh"}
    args = torch.randn(5, 3), torch.randn(5, 4), torch.randn(5, 4)
    found = rnnx.Model(path).run({n: a.numpy() for n, a in zip("xhc", args, strict=True)})
    with torch.no_grad():
        expected = model(*args)
    for actual, one in zip(
        found.values() if isinstance(found, dict) else [found],
        expected if isinstance(expected, tuple) else [expected],
        strict=True,
    ):
        np.testing.assert_allclose(actual, one.numpy(), atol=1e-6)

"""Every fault that `rnnx check` is known to kill, and the probes that kill it.

    python tests/fault_table.py --write docs/parity.md

plants each of them, and writes what was found between two marks of the page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

import faults
import rnnx
import runner_faults
from faults import Fault, plant
from networks import NETWORKS, Network, Plain, X, network
from rnnx.parity import reference
from rnnx.parity.reference import TorchReference
from runner_faults import RunnerFault

START, END = "<!-- faults -->", "<!-- end of faults -->"
NAN = np.array([0, 0, np.nan, 0], np.float32)


class LookAhead(nn.Module):
    """A layer, a convolution that sees two frames ahead, a GRU, and the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Linear(3, 3)
        self.conv = nn.Conv1d(3, 3, 5, padding=2)
        self.rnn = nn.GRU(3, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.front(x)
        y = x + self.conv(x.transpose(1, 2)).transpose(1, 2).tanh()
        out: Tensor = self.rnn(y)[0]
        return out


class Packs(nn.Module):
    """An LSTM of both directions over a packed batch; its frames, and its last states."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
        y, (h, c) = self.rnn(packed)
        y, _ = nn.utils.rnn.pad_packed_sequence(y, True, total_length=x.shape[1])
        return y, h, c


class Gates(Plain):
    """A layer whose gates differ in how large their weights are, as trained ones do."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind, hidden_size=32)
        for name, parameter in self.rnn.named_parameters():
            gates = parameter.data.chunk(faults.GATES[kind])
            for gate, size in zip(gates, (0.5, 1.0, 2.0, 0.25), strict=False):
                gate *= size if "weight" in name else 1.0


class Sum(nn.Module):
    """The sum of all frames so far."""

    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(1)


class Words(nn.Module):
    """A GRU over a table of many words, so that the last is hardly met by chance."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(200_000, 4)
        self.rnn = nn.GRU(4, 4, batch_first=True)

    def forward(self, words: Tensor) -> Tensor:
        y: Tensor = self.rnn(self.table(words))[0]
        return y


def _packs() -> Network:
    model, (x,) = network(Packs, (3, 6, 3))
    return model, (x, torch.tensor([4, 6, 1]))


MORE: dict[str, Callable[[], Network]] = {
    "look-ahead": lambda: network(LookAhead, (2, 12, 3)),
    "packs": _packs,
    "projected": lambda: network(lambda: Plain("LSTM", hidden_size=6, proj_size=4), X),
    "gates-lstm": lambda: network(lambda: Gates("LSTM"), X),
    "gates-gru": lambda: network(lambda: Gates("GRU"), X),
    "sum": lambda: network(Sum, X),
    "words": lambda: (network(Words)[0], (torch.randint(200_000, X[:2]),)),
}
AXES: dict[str, Any] = {
    "packs": ({0: "batch", 1: "time"}, {0: "batch"}),
    "sum": ({0: "batch", 1: "time"},),
}


class Planted(NamedTuple):
    """A fault and where it is planted.

    Attributes:
        network: the name of the network.
        streaming: whether its artifact streams.
        fault: what is changed in the artifact's file, or in the runner.
        fails: the outputs and states that must fail in whole sequences, where that is known.
        level: the level of quantization of the artifact that it is planted in.
        quick: whether it is planted in every run of the tests.
    """

    network: str
    streaming: bool
    fault: Fault | RunnerFault
    fails: str = ""
    level: str | None = None
    quick: bool = True


def feed(faulty: Callable[..., Any]) -> RunnerFault:
    return "feed", faulty


LSTM = "y s000 s001 s002 s003"
UPPER = "y s002 s003"
FAULTS = {
    "LSTM gates rolled": Planted("lstm", True, faults.roll_gates(0), LSTM),
    "upper LSTM gates rolled": Planted("lstm", True, faults.roll_gates(1), UPPER),
    "GRU gates rolled": Planted("gru", True, faults.roll_gates(0), "y s000 s001"),
    "bias dropped": Planted("lstm", True, faults.no_input(1, 3), UPPER),
    "recurrent bias dropped": Planted(
        "gru", True, faults.weight(1, "B", faults.without_half), "y s001"
    ),
    "R zero": Planted("lstm", True, faults.weight(1, "R", np.zeros_like), UPPER),
    "R transposed": Planted("lstm", True, faults.weight(1, "R", faults.transpose_gates), UPPER),
    "W scaled": Planted("rnn", True, faults.weight(0, "W", lambda w: w * 1.01), "y s000 s001"),
    "h0 ignored": Planted("lstm", True, faults.no_input(1, 5), UPPER),
    "c0 ignored": Planted("lstm", True, faults.no_input(1, 6), UPPER),
    "GRU h0 ignored": Planted("gru", True, faults.no_input(0, 5), "y s000 s001"),
    "h and c exchanged at the input": Planted("lstm", True, faults.exchange_states_in(1), UPPER),
    "h and c exchanged at the output": Planted(
        "lstm", True, faults.exchange_states_out(1), "s002 s003"
    ),
    "reset gate before the product": Planted(
        "gru", True, faults.attribute("linear_before_reset", 0), "y s000 s001"
    ),
    "tanh instead of relu": Planted(
        "rnn-relu", True, faults.attribute("activations", ["Tanh"]), "y s000"
    ),
    "layers exchanged": Planted("lstm", True, faults.exchange_layers, LSTM),
    "modules exchanged": Planted(
        "twice", True, faults.exchange_outputs("s000_out", "s001_out"), "s000 s001"
    ),
    "states from the wrong layer": Planted(
        "lstm", True, faults.exchange_outputs("s000_out", "s002_out"), "s000 s002"
    ),
    "state stands still": Planted("two", True, faults.state_stands_still("s001"), "s001"),
    "state scaled": Planted("lstm", True, faults.scaled("s003_out", 1.001), "s003"),
    "output scaled": Planted("lstm", True, faults.scaled("y", 1.001), "y"),
    "output transposed": Planted(
        "lstm", True, faults.after("y", ("Transpose", [], {"perm": [1, 0, 2]})), "y"
    ),
    "features transposed": Planted(
        "lstm", True, faults.after("y", ("Gather", [np.array([1, 0, 2, 3])], {"axis": 2})), "y"
    ),
    "output a frame late": Planted("gru", True, faults.late("y"), "y"),
    "another dtype": Planted("lstm", True, faults.as_double("y"), "y"),
    "a NaN in the weights": Planted("lstm", True, faults.weight(1, "B", faults.with_nan), UPPER),
    "a NaN": Planted("lstm", True, faults.after("y", ("Add", [NAN], {})), "y"),
    "an embedding's last row": Planted("tokens", True, faults.table_row(10), "y s000 s001"),
    "directions exchanged": Planted("bidirectional", False, faults.reverse_directions, "y"),
    "directions side by side the other way": Planted(
        "bidirectional",
        False,
        faults.after("y", ("Gather", [np.array([4, 5, 6, 7, 0, 1, 2, 3])], {"axis": 2})),
        "y",
    ),
    "offline gates rolled": Planted("gru", False, faults.roll_gates(1), "y"),
    "offline layers exchanged": Planted("lstm", False, faults.exchange_layers, "y"),
    "given h0 ignored": Planted("explicit-lstm", False, faults.no_input(0, 5), "y0 y1 y2"),
    "given c0 ignored": Planted("explicit-lstm", False, faults.no_input(1, 6), "y0 y1 y2"),
    "given h0 of a GRU ignored": Planted("explicit-gru", False, faults.no_input(1, 5), "y0 y1"),
    "given h and c exchanged": Planted(
        "explicit-lstm", False, faults.exchange_states_in(1), "y0 y1 y2"
    ),
    "final h and c exchanged": Planted(
        "explicit-lstm", False, faults.exchange_outputs("y1", "y2"), "y1 y2"
    ),
    "learned start state offline": Planted("learned", False, faults.no_input(0, 5), "y"),
    "lengths ignored": Planted("packs", False, faults.no_lengths),
    "lengths: gates rolled": Planted("packs", False, faults.roll_gates(0)),
    "lengths: directions exchanged": Planted("packs", False, faults.reverse_directions),
    "projection scaled": Planted("projected", True, faults.operand("MatMul", lambda w: w * 1.01)),
    "projection of other rows": Planted(
        "projected", True, faults.operand("MatMul", lambda w: w[:, ::-1])
    ),
    "projected: R transposed": Planted(
        "projected", True, faults.weight(0, "R", faults.transpose_gates)
    ),
    "projected: h0 ignored": Planted("projected", True, faults.no_input(0, 5)),
    "a frame of the future": Planted("lstm", True, faults.early("y"), "y"),
    "neighbours in the output": Planted("lstm", True, faults.neighbours_in("y"), "y"),
    "noise": Planted("lstm", True, faults.with_noise),
    "start state forgotten": Planted("learned", True, faults.forgotten_start),
    "a sum that forgets": Planted("sum", True, faults.scaled("s000_out", 1 - 1e-6)),
    "the last word of a long table": Planted("words", True, faults.table_row(199_999)),
    "caches start a frame later": Planted("look-ahead", True, faults.caches_start_later),
    "caches filled by ones": Planted("look-ahead", True, faults.caches_filled_by_ones),
    "cache of a convolution off by one": Planted("look-ahead", True, faults.moved_cache("s000")),
    "cache of a skip off by one": Planted("look-ahead", True, faults.moved_cache("s001")),
    "a damaged convolution": Planted(
        "look-ahead", True, faults.operand("Conv", lambda w: w + np.float32(0.01))
    ),
    "the end is not told": Planted("look-ahead", True, faults.mask_ignored),
    "late output a frame later": Planted("look-ahead", True, faults.late("y")),
    "delay of the contract off by one": Planted("look-ahead", True, faults.delay(1)),
    "delay of the contract too long by one": Planted("look-ahead", True, faults.delay(3)),
    "no tail": Planted("look-ahead", True, ("flush", runner_faults.no_tail)),
    "look-ahead: reset keeps the states": Planted(
        "look-ahead", True, ("reset", runner_faults.first_state_kept)
    ),
    "state never fed back": Planted("lstm", True, feed(runner_faults.never_fed_back), quick=False),
    "reset at each chunk": Planted(
        "lstm", True, feed(runner_faults.reset_at_each_feed), quick=False
    ),
    "stale double buffer": Planted("lstm", True, feed(runner_faults.one_call_behind), quick=False),
    "one buffer for all results": Planted(
        "lstm", True, feed(runner_faults.one_buffer_for_all_results)
    ),
    "last frame of a chunk lost": Planted("lstm", True, feed(runner_faults.last_frame_lost)),
    "reset keeps the states": Planted("gru", True, ("reset", runner_faults.first_state_kept)),
    "int8: weights saturate": Planted(
        "gates-lstm",
        True,
        faults.constant("rnn.l0.R/packed", lambda codes: codes.clip(-24, 24)),
        level="int8",
    ),
    "int8: scales of other gates": Planted(
        "gates-lstm",
        True,
        faults.constant("rnn.l0.R/packed_scale/float16", lambda scale: np.roll(scale, 32, 1)),
        level="int8",
    ),
    "int8-store: weights saturate": Planted(
        "gates-gru",
        True,
        faults.constant("rnn.l0.R/int8", lambda codes: codes.clip(-48, 48)),
        level="int8-store",
    ),
    "int8-store: scales of other gates": Planted(
        "gates-gru",
        True,
        faults.constant("rnn.l0.R/scale", lambda scale: np.roll(scale, 32, 1)),
        level="int8-store",
    ),
    "int8-store: h0 ignored": Planted("gates-gru", True, faults.no_input(0, 5), level="int8-store"),
}


class Remembering(TorchReference):
    """Runs torch once for all faults of a network: they are held against the same."""

    results: dict[Any, Any] = {}  # noqa: RUF012

    def __init__(self, model: nn.Module, *rest: Any) -> None:
        super().__init__(model, *rest)
        self._model = model

    def run(
        self, feeds: Mapping[str, Any], states: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        arrays = [sorted(each.items()) for each in (feeds, states or {})]
        content = [(name, a.shape, a.tobytes()) for each in arrays for name, a in each]
        key = (self._model, self._dtype, states is None, *content)
        if key not in self.results:
            self.results[key] = super().run(feeds, states)
        return self.results[key]


@cache
def model_and_args(name: str) -> Network:
    return (NETWORKS | MORE)[name]()


@cache
def folder() -> TemporaryDirectory[str]:
    return TemporaryDirectory()


@cache
def artifact(name: str, streaming: bool, level: str | None) -> Path:
    """The artifact without a fault, exported once."""
    path = Path(folder().name) / f"{name}-{streaming}-{level}.onnx"
    if level is not None:
        rnnx.quantize(artifact(name, streaming, None), path, level=level)
    else:
        model, args = model_and_args(name)
        rnnx.export(model, args, path, streaming=streaming, dynamic_shapes=AXES.get(name))
    return path


def check(planted: Planted, *, faulty: bool = True) -> rnnx.Report:
    """The report about the artifact, with the fault in it or without."""
    path = artifact(planted.network, planted.streaming, planted.level)
    runner: Any = nullcontext()
    if faulty and isinstance(planted.fault, tuple):
        runner = runner_faults.planted(planted.fault)
    elif faulty and not isinstance(planted.fault, tuple):
        plant(path, path := path.with_suffix(".faulty.onnx"), planted.fault)
    with runner, mock.patch.object(reference, "TorchReference", Remembering):
        return rnnx.check(path, model_and_args(planted.network)[0])


def killers(report: rnnx.Report) -> str:
    """The probes that found something, in the order in which they ran."""
    return ", ".join(dict.fromkeys(f.probe for f in report.findings if not f.passed))


def line(name: str, found: str) -> str:
    """A row of the page's table."""
    planted = FAULTS[name]
    where = " ".join(filter(None, (planted.network, planted.level)))
    return f"| {name} | {where} | {'streaming' if planted.streaming else 'offline'} | {found} |"


def page_lines(page: Path) -> list[str]:
    """The rows of the table as the page has them."""
    text = page.read_text(encoding="utf-8")
    return text.split(START)[1].split(END)[0].strip().splitlines()[2:]


def write(page: Path) -> None:
    """Plant all faults, and put what was found into the page."""
    rows = [line(name, killers(check(planted))) for name, planted in FAULTS.items()]
    head = ["| fault | network | artifact | killed by |", "|---|---|---|---|"]
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    table = "\n".join(["", *head, *rows, ""])
    page.write_text(f"{before}{START}{table}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[sys.argv.index("--write") + 1]))

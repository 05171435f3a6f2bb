"""Recurrent cells as people write them by hand, and some that only look like them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as fn

import rnnx


class Cell(nn.Module):
    """A step run by rnnx.scan; `y` and the last states from `x` and the first state `h`."""

    has_c = False

    def __init__(self, features: int = 3, hidden: int = 5) -> None:
        super().__init__()
        self.features, self.hidden = features, hidden
        self.build(features, hidden)

    def build(self, features: int, hidden: int) -> None:
        """Make the weights."""
        raise NotImplementedError

    def step(self, state: Any, x: Tensor) -> Any:
        """One step."""
        raise NotImplementedError

    def forward(self, x: Tensor, h: Tensor) -> Any:
        state, y = rnnx.scan(self.step, (h, h * 0.5) if self.has_c else h, x)
        return y, state

    def weight(self, *shape: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(*shape) / shape[-1] ** 0.5)


# RNN


class ElmanOneLinear(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.mix = nn.Linear(features + hidden, hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(self.mix(torch.cat([x, h], 1)))
        return h, h


class ElmanMatmul(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.w, self.u = self.weight(features, hidden), self.weight(hidden, hidden)
        self.b = self.weight(hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(self.b + h @ self.u + x @ self.w)
        return h, h


class ReluStateFirst(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.mix = nn.Linear(features + hidden, hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = fn.relu(self.mix(torch.cat([h, x], -1)))
        return h, h


class ReluTurned(Cell):
    """The state's columns are turned round, and a sign is taken twice: still an RNN."""

    def build(self, features: int, hidden: int) -> None:
        self.w, self.u = nn.Linear(features, hidden), self.weight(hidden, hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.relu(-(h.flip(1) @ self.u.T - self.w(x)))
        return h, h


class ElmanEinsum(ElmanMatmul):
    def step(self, h: Tensor, x: Tensor) -> Any:
        recurrent = torch.einsum("gh,bh->bg", self.u, h)
        h = torch.tanh(recurrent + torch.einsum("bf,fh->bh", x, self.w) + self.b)
        return h, h


class LinearMatmul(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.a, self.b = self.weight(hidden, hidden), self.weight(hidden, features)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = 0.5 * h @ self.a.T + fn.linear(x, self.b)
        return h, h


class LinearOneLinear(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.mix = nn.Linear(features + hidden, hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = self.mix(torch.cat([x, h], 1))
        return h, h


# GRU, the reset before the product


class ResetBeforeChunked(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.gates = nn.Linear(features + hidden, 2 * hidden)
        self.new = nn.Linear(features + hidden, hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        r, z = torch.sigmoid(self.gates(torch.cat([x, h], 1))).chunk(2, 1)
        n = torch.tanh(self.new(torch.cat([x, r * h], 1)))
        h = (1 - z) * n + z * h
        return h, h


class ResetBeforeSeparate(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.w = nn.ModuleList(nn.Linear(features, hidden) for _ in range(3))
        self.u = nn.ParameterList(self.weight(hidden, hidden) for _ in range(3))

    def gates(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.sigmoid(self.w[0](x) + h @ self.u[0])
        r = torch.sigmoid(self.w[1](x) + h @ self.u[1])
        return z, torch.tanh(self.w[2](x) + (r * h) @ self.u[2])

    def step(self, h: Tensor, x: Tensor) -> Any:
        z, n = self.gates(h, x)
        h = n + z * (h - n)
        return h, h


class ResetBeforeOtherSign(ResetBeforeSeparate):
    def step(self, h: Tensor, x: Tensor) -> Any:
        z, n = self.gates(h, x)
        h = z * n + (1 - z) * h
        return h, h


class ResetBeforeLerp(ResetBeforeSeparate):
    def step(self, h: Tensor, x: Tensor) -> Any:
        z, n = self.gates(h, x)
        h = torch.lerp(h, n, z)
        return h, h


# GRU, the reset behind the product


class ResetAfterCell(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.cell = nn.GRUCell(features, hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h = self.cell(x, h)
        return h, h


class ResetAfterLinears(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.w, self.u = nn.Linear(features, 3 * hidden), nn.Linear(hidden, 3 * hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        h_size = self.hidden
        a, b = self.w(x), self.u(h)
        gates = torch.sigmoid(a[:, : 2 * h_size] + b[:, : 2 * h_size])
        z, r = gates.split(h_size, 1)
        n = torch.tanh(a[:, -h_size:] + b[:, -h_size:] * r)
        h = h + z * (n - h)
        return h, h


class ResetAfterNoBias(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.w, self.u = self.weight(3 * hidden, features), self.weight(hidden, 3 * hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        w, (u_z, u_r, u_n) = self.w.chunk(3), self.u.chunk(3, 1)
        z = torch.sigmoid(torch.addmm(x @ w[0].T, h, u_z))
        r = torch.sigmoid(x @ w[1].T + h @ u_r)
        h = z * h + (1.0 - z) * torch.tanh(x.mm(w[2].t()) + r * h.mm(u_n))
        return h, h


# Minimal gated unit


class MinimalOneLinear(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.gate, self.new = (nn.Linear(features + hidden, hidden) for _ in range(2))

    def step(self, h: Tensor, x: Tensor) -> Any:
        f = torch.sigmoid(self.gate(torch.cat([x, h], 1)))
        n = torch.tanh(self.new(torch.cat([x, f * h], 1)))
        h = (1 - f) * h + f * n
        return h, h


class MinimalSeparate(Cell):
    def build(self, features: int, hidden: int) -> None:
        self.w, self.u = nn.Linear(features, 2 * hidden), self.weight(2, hidden, hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        a, b = self.w(x).chunk(2, 1)
        f = torch.sigmoid(a + h @ self.u[0])
        h = torch.addcmul(h, f, torch.tanh(b + (h * f) @ self.u[1]) - h)
        return h, h


# LSTM


class LstmOneLinear(Cell):
    has_c = True

    def build(self, features: int, hidden: int) -> None:
        self.mix = nn.Linear(features + hidden, 4 * hidden)

    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = self.mix(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h


class LstmCellFirst(Cell):
    """Four pairs of layers, the state is (c, h), three gates pass one sigmoid."""

    has_c = True

    def build(self, features: int, hidden: int) -> None:
        self.w = nn.ModuleList(nn.Linear(features, hidden) for _ in range(4))
        self.u = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in range(4))

    def step(self, state: Any, x: Tensor) -> Any:
        c, h = state
        o, i, f, g = (w(x) + u(h) for w, u in zip(self.w, self.u, strict=True))
        o, i, f = torch.sigmoid(torch.cat([o, i, f], 1)).chunk(3, 1)
        c = g.tanh() * i + c * f
        h = c.tanh() * o
        return (c, h), h


class LstmCell(Cell):
    has_c = True

    def build(self, features: int, hidden: int) -> None:
        self.cell = nn.LSTMCell(features, hidden)

    def step(self, state: Any, x: Tensor) -> Any:
        h, c = self.cell(x, state)
        return (h, c), h


class Peepholes(Cell):
    has_c = True

    def build(self, features: int, hidden: int) -> None:
        self.mix, self.p = nn.Linear(features + hidden, 4 * hidden), self.weight(3, hidden)

    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = self.mix(torch.cat([x, h], 1)).chunk(4, 1)
        i, f = torch.sigmoid(i + self.p[0] * c), torch.sigmoid(f + self.p[1] * c)
        c = f * c + i * torch.tanh(g)
        h = torch.sigmoid(o + self.p[2] * c) * torch.tanh(c)
        return (h, c), h


class PeepholesSome(Cell):
    """Only f and o see the cell; the products are fused."""

    has_c = True

    def build(self, features: int, hidden: int) -> None:
        self.w, self.u = nn.Linear(features, 4 * hidden), self.weight(4 * hidden, hidden)
        self.p_f, self.p_o = self.weight(hidden), self.weight(hidden)

    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = torch.addmm(self.w(x), h, self.u.T).chunk(4, 1)
        c = torch.sigmoid(torch.addcmul(f, c, self.p_f)) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.tanh(c) * torch.sigmoid(torch.addcmul(o, c, self.p_o))
        return (h, c), h


class CoupledInput(LstmOneLinear):
    def build(self, features: int, hidden: int) -> None:
        self.mix = nn.Linear(features + hidden, 3 * hidden)

    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        i, g, o = self.mix(torch.cat([x, h], 1)).chunk(3, 1)
        i = torch.sigmoid(i)
        c = (1 - i) * c + i * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h


class CoupledForget(CoupledInput):
    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        f, g, o = self.mix(torch.cat([x, h], 1)).chunk(3, 1)
        c = torch.lerp(torch.tanh(g), c, torch.sigmoid(f))
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h


class CoupledPeepholes(Peepholes):
    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        f, g, _, o = self.mix(torch.cat([x, h], 1)).chunk(4, 1)
        f, g = torch.sigmoid(f + self.p[0] * c), torch.tanh(g)
        c = g + f * (c - g)
        h = torch.sigmoid(o + self.p[2] * c) * torch.tanh(c)
        return (h, c), h


NATIVE: dict[str, list[type[Cell]]] = {
    "RNN": [
        ElmanOneLinear,
        ElmanMatmul,
        ElmanEinsum,
        ReluStateFirst,
        ReluTurned,
        LinearMatmul,
        LinearOneLinear,
    ],
    "GRU": [
        ResetBeforeChunked,
        ResetBeforeSeparate,
        ResetBeforeOtherSign,
        ResetBeforeLerp,
        ResetAfterCell,
        ResetAfterLinears,
        ResetAfterNoBias,
        MinimalOneLinear,
        MinimalSeparate,
    ],
    "LSTM": [
        LstmOneLinear,
        LstmCellFirst,
        LstmCell,
        Peepholes,
        PeepholesSome,
        CoupledInput,
        CoupledForget,
        CoupledPeepholes,
    ],
}


# Near misses: no native operator computes these


class TanhTwice(ElmanOneLinear):
    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(torch.tanh(self.mix(torch.cat([x, h], 1))))
        return h, h


class EinsumBothWays(Cell):
    """The state's outer product with itself, in part: no matrix of weights."""

    def build(self, features: int, hidden: int) -> None:
        self.w = self.weight(features, hidden)

    def step(self, h: Tensor, x: Tensor) -> Any:
        mixed = torch.einsum("bh,bk->bh", h, 0.1 * h)  # more would be chaotic
        h = torch.tanh(torch.einsum("bf,fh->bh", x, self.w) + mixed)
        return h, h


class OutputOfOutput(ElmanOneLinear):
    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(self.mix(torch.cat([x, h], 1)))
        return h, torch.relu(h)


class OutputBefore(ElmanOneLinear):
    def step(self, h: Tensor, x: Tensor) -> Any:
        return torch.tanh(self.mix(torch.cat([x, h], 1))), h


class TwoStepsBack(ElmanOneLinear):
    """h' depends on the last two states; as in an LSTM, two states are carried."""

    has_c = True

    def step(self, state: Any, x: Tensor) -> Any:
        h, before = state
        new = torch.tanh(self.mix(torch.cat([x, h + 0.5 * before], 1)))
        return (new, h), new


class AcrossTheBatch(ElmanOneLinear):
    def step(self, h: Tensor, x: Tensor) -> Any:
        h = torch.tanh(self.mix(torch.cat([x, h - h.mean(0, keepdim=True)], 1)))
        return h, h


class SeesTheFirstState(ElmanOneLinear):
    """A wire from outside the loop that is no constant."""

    def forward(self, x: Tensor, h: Tensor) -> Any:
        first = h

        def step(h: Tensor, x: Tensor) -> Any:
            h = torch.tanh(self.mix(torch.cat([x, h], 1)) + first)
            return h, h

        state, y = rnnx.scan(step, h, x)
        return y, state


class ResetTwice(ResetBeforeSeparate):
    def gates(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.sigmoid(self.w[0](x) + h @ self.u[0])
        r = torch.sigmoid(self.w[1](x) + h @ self.u[1])
        return z, torch.tanh(self.w[2](x) + r * ((r * h) @ self.u[2]))


class ResetOfInput(ResetBeforeSeparate):
    def gates(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.sigmoid(self.w[0](x) + h @ self.u[0])
        r = torch.sigmoid(self.w[1](x) + h @ self.u[1])
        return z, torch.tanh(r * (self.w[2](x) + h @ self.u[2]))


class ResetAndNot(ResetBeforeSeparate):
    """The candidate sees the state with the reset and without it."""

    def gates(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.sigmoid(self.w[0](x) + h @ self.u[0])
        r = torch.sigmoid(self.w[1](x) + h @ self.u[1])
        return z, torch.tanh(self.w[2](x) + (r * h) @ self.u[2] + h @ self.u[1])


class GatesUncoupled(ResetBeforeSeparate):
    def step(self, h: Tensor, x: Tensor) -> Any:
        z, n = self.gates(h, x)
        h = z * h + torch.sigmoid(self.w[1](x)) * n
        return h, h


class SigmoidCandidate(ResetBeforeSeparate):
    def step(self, h: Tensor, x: Tensor) -> Any:
        z, n = self.gates(h, x)
        h = z * h + (1 - z) * torch.sigmoid(n)
        return h, h


class GateOfGate(ResetBeforeSeparate):
    """The update gate depends on the reset gate, not on x and h alone."""

    def step(self, h: Tensor, x: Tensor) -> Any:
        _, n = self.gates(h, x)
        r = torch.sigmoid(self.w[1](x) + h @ self.u[1])
        z = torch.sigmoid(self.w[0](x) + r @ self.u[0])
        h = z * h + (1 - z) * n
        return h, h


class NoOutputTanh(LstmOneLinear):
    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = self.mix(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * c
        return (h, c), h


class OutputIsC(LstmOneLinear):
    def step(self, state: Any, x: Tensor) -> Any:
        (h, c), _ = super().step(state, x)
        return (h, c), c


class OutputPeepholeOld(Peepholes):
    """ONNX's output gate sees the new c; this one sees the old."""

    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = self.mix(torch.cat([x, h], 1)).chunk(4, 1)
        o = torch.sigmoid(o + self.p[2] * c)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = o * torch.tanh(c)
        return (h, c), h


class PeepholeMixes(Peepholes):
    """A full matrix where ONNX has a diagonal."""

    def build(self, features: int, hidden: int) -> None:
        super().build(features, hidden)
        self.full = self.weight(hidden, hidden)

    def step(self, state: Any, x: Tensor) -> Any:
        h, c = state
        i, f, g, o = self.mix(torch.cat([x, h], 1)).chunk(4, 1)
        i = torch.sigmoid(i + c @ self.full)
        c = torch.sigmoid(f) * c + i * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h, c), h


NEAR_MISSES: list[type[Cell]] = [
    TanhTwice,
    EinsumBothWays,
    OutputOfOutput,
    OutputBefore,
    TwoStepsBack,
    AcrossTheBatch,
    SeesTheFirstState,
    ResetTwice,
    ResetOfInput,
    ResetAndNot,
    GatesUncoupled,
    SigmoidCandidate,
    GateOfGate,
    NoOutputTanh,
    OutputIsC,
    OutputPeepholeOld,
    PeepholeMixes,
]

"""Networks over features and tokens, as people write them, only small: RNNs, TCNs, loops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

import rnnx


class Windowed(nn.Module):
    """Convolutions, then attention of every frame to itself and the three before it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)
        self.query, self.key, self.value = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(F.pad(x.transpose(1, 2), (2, 0)))).transpose(1, 2)
        keys, values = self._window(self.key(y)), self._window(self.value(y))
        scores = (keys * self.query(y).unsqueeze(2)).sum(-1) / 2
        return x + (scores.softmax(-1).unsqueeze(-1) * values).sum(2)

    def _window(self, x: Tensor) -> Tensor:
        past = F.pad(x, (0, 0, 3, 0))
        return torch.stack([past[:, :-3], past[:, 1:-2], past[:, 2:-1], past[:, 3:]], 2)


class Forecaster(nn.Module):
    """The next values from an LSTM's last state and its last frame."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, num_layers=2, batch_first=True)
        self.one, self.two = nn.Linear(5, 2), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y, (h, _) = self.lstm(x)
        return {"mean": self.one(h[-1]), "spread": F.softplus(self.two(y[:, -1]))}


class Classifier(nn.Module):
    """Sensors, a convolution that looks ahead, a GRU, classes from its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 5, padding=2)
        self.gru, self.fc = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.fc(self.gru(y)[0][:, -1, :]).softmax(-1)


class ByState(Classifier):
    """The same, read from `h_n`."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.fc(self.gru(y)[1][-1])


class Personal(nn.Module):
    """Audio features and others at the same rate, and a speaker's embedding without time."""

    def __init__(self) -> None:
        super().__init__()
        self.audio, self.other = nn.Conv1d(4, 3, 3, padding=1), nn.Linear(2, 3)
        self.lstm = nn.LSTM(9, 5, batch_first=True)

    def forward(self, audio: Tensor, other: Tensor, speaker: Tensor) -> Tensor:
        a = self.audio(audio.transpose(1, 2)).transpose(1, 2)
        voice = speaker.unsqueeze(1).expand(-1, a.size(1), -1)
        return self.lstm(torch.cat([a, self.other(other), voice], -1))[0]


class Film(nn.Module):
    """A speaker's embedding scales and shifts what a GRU gives."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.film = nn.GRU(4, 5, batch_first=True), nn.Linear(3, 10)

    def forward(self, x: Tensor, speaker: Tensor) -> Tensor:
        scale, shift = self.film(speaker)[:, None].chunk(2, -1)
        return self.gru(x)[0] * scale + shift


class Heads(nn.Module):
    """One encoder, heads with different look-ahead, and one that needs none."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)
        self.near, self.far = nn.Conv1d(5, 2, 3, padding=1), nn.Conv1d(5, 2, 7, padding=3)
        self.now = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.gru(x)[0]
        rows = y.transpose(1, 2)
        return self.now(y), self.near(rows).transpose(1, 2), self.far(rows)


class Deltas(nn.Module):
    """The features, their differences, and the differences of those, under a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(9, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        first = F.pad(x[:, 1:] - x[:, :-1], (0, 0, 1, 0))
        second = F.pad(first[:, 1:] - first[:, :-1], (0, 0, 1, 0))
        return self.gru(torch.cat([x, first, second], -1))[0]


class Context(nn.Module):
    """Each frame joined to two before and two behind it, by shifts."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(15, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        frames, padded = x.shape[1], F.pad(x, (0, 0, 2, 2))
        shifted = [padded[:, i : i + frames] for i in range(5)]
        return self.lstm(torch.cat(shifted, dim=-1))[0]


class ContextByEnds(nn.Module):
    """The same, the shifts counted from the end."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(9, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        zeros = x.new_zeros(x.shape[0], 1, x.shape[2])
        before = torch.cat([zeros, x[:, :-1]], dim=1)
        behind = torch.cat([x[:, 1:], zeros], dim=1)
        return self.lstm(torch.cat([before, x, behind], dim=-1))[0]


class UnfoldedFrames(nn.Module):
    """Each frame joined to the two before it by `unfold`: in ONNX, places to look up."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(12, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(F.pad(x, (0, 0, 2, 0)).unfold(1, 3, 1).flatten(2))[0]


class Behind(nn.Module):
    """A layer over `[batch, features, time]` behind a GRU."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.gru, self.layer = nn.GRU(4, 4, batch_first=True), layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.gru(x)[0].transpose(1, 2)).transpose(1, 2)


class Attention(nn.Module):
    """Every frame of a GRU attends to all."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.out = nn.GRU(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(x)[0]
        return self.out((y @ y.transpose(1, 2) / 2).softmax(-1) @ y)


class Stacked(nn.Module):
    """Three frames as one, as listeners do, under an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, features = x.shape
        return self.lstm(x.reshape(batch, frames // 3, features * 3))[0]


class Subpixels(nn.Module):
    """Twice the frames, both halves of what a layer gives for one."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.GRU(4, 6, batch_first=True), nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lower(x)[0]
        return self.upper(y.reshape(x.shape[0], x.shape[1] * 2, 3))[0]


class Smoothed(nn.Module):
    """Per-channel energy normalisation: an exponential moving average by `rnnx.scan`."""

    def __init__(self) -> None:
        super().__init__()
        self.rate, self.gain = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4) + 0.5)
        self.gru = nn.GRU(4, 5, batch_first=True)

    def forward(self, energy: Tensor) -> Tensor:
        def step(mean: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
            mean = mean + self.rate * (frame - mean)
            return mean, mean

        energy = energy.square()
        _, mean = rnnx.scan(step, torch.zeros_like(energy[:, 0]), energy)
        return self.gru((energy / (mean + 1e-2) ** self.gain + 2).sqrt() - 2**0.5)[0]


class RunningMean(nn.Module):
    """The mean so far taken from every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1, x.size(1) + 1, device=x.device)
        return self.gru(x - x.cumsum(1) / count[None, :, None])[0]


class Gated(nn.Module):
    """Gated linear units over convolutions, as language models had them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(13, 4)
        self.convs = nn.ModuleList([nn.Conv1d(4, 8, 3, padding=2) for _ in range(2)])
        self.out = nn.Linear(4, 13)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens).transpose(1, 2)
        for conv in self.convs:
            x = x + F.glu(conv(x)[:, :, :-2], dim=1)
        return self.out(x.transpose(1, 2))


class Highway(nn.Module):
    """Highway layers before a GRU, as in CBHG."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.gates = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])
        self.gru = nn.GRU(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        for value, gate in zip(self.values, self.gates, strict=True):
            g = torch.sigmoid(gate(x))
            x = g * F.relu(value(x)) + (1 - g) * x
        return self.gru(x)[0]


def separable(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(inputs, inputs, kernel, stride, padding=kernel // 2, groups=inputs, bias=False),
        nn.Conv1d(inputs, outputs, 1, bias=False),
        nn.BatchNorm1d(outputs),
    )


class MatchboxNet(nn.Module):
    """Depthwise separable convolutions with a residual, classes for every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.prologue, self.residual = separable(4, 6, 5), nn.Conv1d(6, 8, 1)
        self.block = nn.Sequential(separable(6, 8, 5), nn.ReLU(), separable(8, 8, 5))
        self.epilogue = nn.Conv1d(8, 3, 5, dilation=2, padding=4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.prologue(x))
        return self.epilogue(F.relu(self.block(y) + self.residual(y)))


class QuartzNet(nn.Module):
    """A stride of two, then residual blocks of separable convolutions; log probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.front = separable(4, 6, 5, stride=2)
        self.blocks = nn.ModuleList(
            [nn.Sequential(separable(6, 6, k), nn.ReLU(), separable(6, 6, k)) for k in (3, 7)]
        )
        self.skips = nn.ModuleList(
            [nn.Sequential(nn.Conv1d(6, 6, 1), nn.BatchNorm1d(6)) for _ in range(2)]
        )
        self.out = nn.Conv1d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.front(x.transpose(1, 2)))
        for block, skip in zip(self.blocks, self.skips, strict=True):
            y = F.relu(block(y) + skip(y))
        return self.out(y).transpose(1, 2).log_softmax(-1)


class WaveNet(nn.Module):
    """Gated dilated convolutions of two taps, the skips of all layers summed."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, 4, 1)
        self.gates = nn.ModuleList([nn.Conv1d(4, 8, 2, dilation=2**i) for i in range(4)])
        self.residuals = nn.ModuleList([nn.Conv1d(4, 4, 1) for _ in range(4)])
        self.skips = nn.ModuleList([nn.Conv1d(4, 5, 1) for _ in range(4)])
        self.out = nn.Sequential(nn.ReLU(), nn.Conv1d(5, 5, 1), nn.ReLU(), nn.Conv1d(5, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.front(x), 0
        for gate, residual, skip in zip(self.gates, self.residuals, self.skips, strict=True):
            a, b = gate(F.pad(x, (gate.dilation[0], 0))).chunk(2, 1)
            z = torch.tanh(a) * torch.sigmoid(b)
            total, x = total + skip(z), x + residual(z)
        return self.out(total)


class Unpadded(WaveNet):
    """The same without padding: each skip cut to what the last layer leaves."""

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.front(x), []
        for gate, residual, skip in zip(self.gates, self.residuals, self.skips, strict=True):
            a, b = gate(x).chunk(2, 1)
            z = torch.tanh(a) * torch.sigmoid(b)
            x = x[..., gate.dilation[0] :] + residual(z)
            skips.append(skip(z))
        cuts = (14, 12, 8, 0)
        return self.out(sum(skip[..., cut:] for skip, cut in zip(skips, cuts, strict=True)))


class MinimalGated(nn.Module):
    """A minimal gated unit, its loop by `rnnx.scan`."""

    def __init__(self) -> None:
        super().__init__()
        self.forget, self.new = nn.Linear(4 + 5, 5), nn.Linear(4 + 5, 5)

    def forward(self, x: Tensor) -> Tensor:
        def step(h: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
            f = torch.sigmoid(self.forget(torch.cat([frame, h], -1)))
            new = torch.tanh(self.new(torch.cat([frame, f * h], -1)))
            h = (1 - f) * h + f * new
            return h, h

        return rnnx.scan(step, x.new_zeros(x.shape[0], 5), x)[1]


class Peephole(nn.Module):
    """An LSTM whose gates see its cell, its loop by `rnnx.scan`."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(4, 20), nn.Linear(5, 20, bias=False)
        self.peep = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        def step(state: tuple[Tensor, Tensor], frame: Tensor) -> Any:
            h, c = state
            i, f, g, o = (frame + self.h(h)).chunk(4, -1)
            i, f = torch.sigmoid(i + self.peep[0] * c), torch.sigmoid(f + self.peep[1] * c)
            c = f * c + i * torch.tanh(g)
            h = torch.sigmoid(o + self.peep[2] * c) * torch.tanh(c)
            return (h, c), h

        zeros = x.new_zeros(x.shape[0], 5)
        return rnnx.scan(step, (zeros, zeros), self.x(x))[1]


class Sru(nn.Module):
    """A simple recurrent unit: all products before the loop, which is elementwise."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Linear(4, 12)
        self.v = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        def step(c: Tensor, frame: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            value, forget, reset, skip = frame
            f = torch.sigmoid(forget + self.v[0] * c)
            r = torch.sigmoid(reset + self.v[1] * c)
            c = f * c + (1 - f) * value
            return c, r * c + (1 - r) * skip

        frames = (*self.gates(x).chunk(3, -1), x)
        return rnnx.scan(step, torch.zeros_like(x[:, 0]), frames)[1]


class Qrnn(nn.Module):
    """A quasi-recurrent layer: gates from a causal convolution, pooled by a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 15, 2)

    def forward(self, x: Tensor) -> Tensor:
        def step(c: Tensor, frame: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            z, f = frame
            c = f * c + (1 - f) * z
            return c, c

        gates = self.conv(F.pad(x.transpose(1, 2), (1, 0))).transpose(1, 2)
        z, f, o = gates.chunk(3, -1)
        _, c = rnnx.scan(step, x.new_zeros(x.shape[0], 5), (torch.tanh(z), torch.sigmoid(f)))
        return torch.sigmoid(o) * c


class Residual(nn.Module):
    """Layers of LSTM behind norms, each added to its input; wider than that where projected."""

    def __init__(self, layers: int, **options: int) -> None:
        super().__init__()
        width = 7 if options else 4
        self.lstms = nn.ModuleList(
            [nn.LSTM(4, width, batch_first=True, **options) for _ in range(layers)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(4) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        for lstm, norm in zip(self.lstms, self.norms, strict=True):
            x = x + lstm(norm(x))[0]
        return x


class LanguageModel(nn.Module):
    """Tokens, a GRU, logits; by the table that embeds them, where tied."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(13, 5), nn.Linear(5, 13)
        self.gru = nn.GRU(5, 5, num_layers=2, batch_first=True)
        if tied:
            self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.gru(self.embedding(tokens))[0])


class Upsampled(nn.Module):
    """A causal convolution of stride two, an LSTM, and back by repeating or by a transposed one."""

    def __init__(self, *, nearest: bool) -> None:
        super().__init__()
        self.down = nn.Conv1d(3, 4, 4, stride=2)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.up = None if nearest else nn.ConvTranspose1d(4, 4, 4, stride=2, padding=1)
        self.out = nn.Conv1d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.down(F.pad(x, (2, 0))).transpose(1, 2)
        y = self.lstm(y)[0].transpose(1, 2)
        y = F.interpolate(y, scale_factor=2, mode="nearest") if self.up is None else self.up(y)
        return self.out(F.pad(y, (2, 0)))


class Repeated(nn.Module):
    """Slow frames repeated by `repeat_interleave` beside the fast ones."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.fast = nn.GRU(4, 3, batch_first=True), nn.GRU(7, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        slow = self.slow(F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2))[0]
        return self.fast(torch.cat([x, slow.repeat_interleave(2, dim=1)], -1))[0]


class Pools(nn.Module):
    """Pools of each kind that move by one frame, side by side, under a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AvgPool1d(5, stride=1, padding=2, count_include_pad=False)
        self.most = nn.MaxPool1d(3, stride=1, padding=1)
        self.norm = nn.LPPool1d(2, 3, stride=1)
        self.gru = nn.GRU(9, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2)
        norm = self.norm(F.pad(rows, (2, 0)).abs() + 0.1)
        joined = torch.cat([self.mean(rows), self.most(rows), norm], 1)
        return self.gru(joined.transpose(1, 2))[0]


class Distributed(nn.Module):
    """Layers over `batch * time` rows, a batch norm among them, as Keras' TimeDistributed."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 5)
        self.gru = nn.GRU(5, 4, batch_first=True)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, features = x.shape
        rows = F.relu(self.norm(self.one(x.reshape(batch * frames, features))))
        y = self.gru(self.two(rows).view(batch, frames, -1))[0]
        return self.out(y.contiguous().view(-1, 4)).view(batch, frames, 2)


class Einsum(nn.Module):
    """Heads of a GRU's frames, each with its matrix, by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6, batch_first=True)
        self.weights = nn.Parameter(torch.randn(2, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.gru(x)[0]
        heads = y.view(y.shape[0], y.shape[1], 2, 3)
        return torch.einsum("bthi,hio->btho", heads, self.weights).flatten(2)


class TimeFirst(nn.Module):
    """`[time, batch, features]` throughout, with a norm and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.LSTM(4, 4), nn.GRU(4, 5, num_layers=2)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(self.norm(self.lower(x)[0] + x))[0]


class Unbatched(nn.Module):
    """`[time, features]`: a convolution that looks ahead, a GRU, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru = nn.Conv1d(3, 4, 3, padding=1), nn.GRU(4, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.gru(F.relu(self.conv(x.T)).T)[0])


class Cells(nn.Module):
    """Cells stepped by `rnnx.scan`, a learned start."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.start = nn.GRUCell(4, 5), nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        return rnnx.scan(self.cell, self.start.expand(x.shape[0], -1), x)[1]


class Sinks(nn.Module):
    """A tagger of characters with a mask of padding, frames of which are set to zero."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(13, 4, padding_idx=0)
        self.lstm, self.out = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        mask = (tokens != 0).unsqueeze(-1)
        logits = self.out(self.lstm(self.embedding(tokens))[0]).masked_fill(~mask, 0.0)
        return logits, logits.argmax(-1)


class Mixture(nn.Module):
    """Experts gated for every frame, over a shared LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gate = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)
        self.experts = nn.ModuleList([nn.Linear(5, 2) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        y = self.lstm(x)[0]
        experts = torch.stack([expert(y) for expert in self.experts], -1)
        return (experts * self.gate(y).softmax(-1).unsqueeze(2)).sum(-1)


class Squeezed(nn.Module):
    """Squeeze-and-excitation over features of each frame, group norm by groups of features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.narrow, self.wide = (
            nn.Conv2d(1, 4, (3, 3)),
            nn.Linear(4, 2),
            nn.Linear(2, 4),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.pad(x.unsqueeze(1), (1, 1, 2, 0)))
        weights = self.wide(F.relu(self.narrow(y.mean(3).transpose(1, 2)))).sigmoid()
        return y * weights.transpose(1, 2).unsqueeze(3)

"""Networks over audio and video, as people write them, only small."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from torch.nn.utils.parametrizations import weight_norm


class Mask(nn.Module):
    """A stage of DTLN: LSTMs that give a mask for `[batch, time, features]`."""

    def __init__(self, features: int, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            features, 6, num_layers=2, batch_first=True, bidirectional=bidirectional
        )
        self.out = nn.Linear(12 if bidirectional else 6, features)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.out(self.lstm(x)[0]))


class Dtln(nn.Module):
    """Two stages of masks between an analysis and a synthesis of samples `[batch, time]`."""

    def __init__(self) -> None:
        super().__init__()
        self.analysis = nn.Conv1d(1, 8, 16, stride=4, bias=False)
        self.first, self.second = Mask(8), Mask(10)
        self.encoder = nn.Conv1d(8, 10, 1, bias=False)
        self.norm = nn.LayerNorm(10)
        self.decoder = nn.Conv1d(10, 8, 1, bias=False)
        self.synthesis = nn.ConvTranspose1d(8, 1, 16, stride=4, bias=False)

    def forward(self, samples: Tensor) -> Tensor:
        frames = self.analysis(samples.unsqueeze(1)).transpose(1, 2)
        frames = frames * self.first(frames)
        encoded = self.encoder(frames.transpose(1, 2)).transpose(1, 2)
        encoded = encoded * self.second(self.norm(encoded))
        return self.synthesis(self.decoder(encoded.transpose(1, 2))).squeeze(1)


class Crnn(nn.Module):
    """Keywords in `[batch, time, features]`: 2-d convolutions, then a GRU, read at its end."""

    def __init__(self, pool: tuple[int, int], *, readout: bool) -> None:
        super().__init__()
        self.readout = readout
        self.convs = nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=(0, 1)),
            nn.BatchNorm2d(3),
            nn.ReLU(),
            nn.MaxPool2d(pool),
            nn.Conv2d(3, 4, (2, 3), padding=(0, 1)),
            nn.BatchNorm2d(4),
            nn.ReLU(),
        )
        self.gru = nn.GRU(4 * 4, 5, batch_first=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs(x.unsqueeze(1)).permute(0, 2, 1, 3)
        y = self.gru(y.flatten(2))[0]
        return F.log_softmax(self.fc(y[:, -1] if self.readout else y), dim=-1)


class CausalConv2d(nn.Module):
    """A 2-d convolution over `[batch, channels, time, frequency]` that sees no future."""

    def __init__(self, inputs: int, outputs: int, *, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.past = 2 * dilation
        self.conv = nn.Conv2d(
            inputs, outputs, (3, 3), padding=(0, 1), dilation=(dilation, 1), groups=groups
        )
        self.norm, self.act = nn.BatchNorm2d(outputs), nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(F.pad(x, (0, 0, self.past, 0)))))


class GroupedTcrn(nn.Module):
    """Like GTCRN: bands, 2-d convolutions strided in frequency, dilated ones, a mask of both parts.

    Its input is a spectrum `[batch, frequency, time, 2]`, its output another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bands, self.unbands = nn.Linear(12, 8, bias=False), nn.Linear(8, 12, bias=False)
        self.down = nn.Conv2d(3, 4, (1, 5), stride=(1, 2), padding=(0, 2))
        self.first = CausalConv2d(4, 4, dilation=1, groups=2)
        self.second = CausalConv2d(4, 4, dilation=2, groups=2)
        self.gru = nn.GRU(16, 16, batch_first=True)
        self.up = nn.ConvTranspose2d(4, 2, (1, 6), stride=(1, 2), padding=(0, 2))

    def forward(self, spectrum: Tensor) -> Tensor:
        parts = spectrum.permute(0, 3, 2, 1)
        magnitude = (parts.square().sum(1, keepdim=True) + 1e-6).sqrt()
        skip = F.prelu(self.down(self.bands(torch.cat([magnitude, parts], 1))), skip_slope(parts))
        y = self.second(self.first(skip))
        batch, channels, frames, bands = y.shape
        rows = y.permute(0, 2, 1, 3).reshape(batch, frames, channels * bands)
        y = self.gru(rows)[0].reshape(batch, frames, channels, bands).permute(0, 2, 1, 3)
        mask = torch.tanh(self.unbands(self.up(y + skip)))
        real = parts[:, 0] * mask[:, 0] - parts[:, 1] * mask[:, 1]
        imaginary = parts[:, 1] * mask[:, 0] + parts[:, 0] * mask[:, 1]
        return torch.stack([real, imaginary], 1).permute(0, 3, 2, 1)


def skip_slope(like: Tensor) -> Tensor:
    return torch.full((1,), 0.2, dtype=like.dtype)


class Unet(nn.Module):
    """Strided in frequency, with skips, over a spectrum `[batch, 1, time, frequency]`."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [nn.Conv2d(1, 3, (2, 3), (1, 2), (1, 1)), nn.Conv2d(3, 4, (2, 3), (1, 2), (1, 1))]
        )
        self.gru = nn.GRU(16, 8, batch_first=True)
        self.back = nn.Linear(8, 16)
        self.up = nn.ModuleList(
            [
                nn.ConvTranspose2d(8, 3, (2, 3), (1, 2), (0, 1)),
                nn.ConvTranspose2d(6, 1, (2, 3), (1, 2), (0, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        skips, y = [], x
        for conv in self.down:
            y = F.elu(conv(y)[:, :, :-1])  # padded on both sides, cut behind: causal
            skips.append(y)
        batch, channels, frames, bands = y.shape
        rows = self.back(self.gru(y.transpose(1, 2).reshape(batch, frames, -1))[0])
        y = rows.view(batch, frames, channels, bands).transpose(1, 2)
        for conv in self.up:
            y = F.elu(conv(torch.cat([y, skips.pop()], 1))[:, :, :-1])
        return y * x


class TimeUnet(nn.Module):
    """Strided in time, for lengths of whole fours: Conv1d down, ConvTranspose1d up, skips."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(2, 4, 4, 2, 1), nn.Conv1d(4, 6, 4, 2, 1)
        self.gru = nn.GRU(6, 6, batch_first=True)
        self.three = nn.ConvTranspose1d(6, 4, 4, 2, 1)
        self.four = nn.ConvTranspose1d(8, 2, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = F.leaky_relu(self.one(x), 0.1)
        two = F.leaky_relu(self.two(one), 0.1)
        y = self.gru(two.transpose(1, 2))[0].transpose(1, 2)
        return self.four(torch.cat([F.relu(self.three(y)), one], 1))


class CumulativeNorm(nn.Module):
    """Conv-TasNet's causal norm: over channels and all frames so far, `[batch, channels, time]`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(channels, 1) + 0.5)
        self.bias = nn.Parameter(torch.randn(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        count = torch.arange(1, x.shape[-1] + 1, device=x.device).to(x.dtype) * x.shape[1]
        mean = x.sum(1, keepdim=True).cumsum(-1) / count
        square = x.square().sum(1, keepdim=True).cumsum(-1) / count
        return (x - mean) / (square - mean.square() + 1e-5).sqrt() * self.gain + self.bias


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of `[batch, channels, time]`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class ConvTasNet(nn.Module):
    """Encoder, masks from dilated depthwise convolutions, decoder; two of `[batch, time]`."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 6, 8, stride=4, bias=False)
        self.norm, self.narrow = norm(6), nn.Conv1d(6, 4, 1)
        self.blocks = nn.ModuleList([TasNetBlock(norm, 2**i) for i in range(3)])
        self.masks = nn.Conv1d(4, 2 * 6, 1)
        self.decoder = nn.ConvTranspose1d(6, 1, 8, stride=4, bias=False)

    def forward(self, mixture: Tensor) -> tuple[Tensor, ...]:
        encoded = F.relu(self.encoder(mixture.unsqueeze(1)))
        y, skips = self.narrow(self.norm(encoded)), 0
        for block in self.blocks:
            y, skip = block(y)
            skips = skips + skip
        masks = torch.sigmoid(self.masks(skips)).chunk(2, 1)
        return tuple(self.decoder(encoded * mask).squeeze(1) for mask in masks)


class TasNetBlock(nn.Module):
    def __init__(self, norm: type[nn.Module], dilation: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(4, 6, 1)
        self.depthwise = nn.Conv1d(6, 6, 3, groups=6, dilation=dilation, padding=2 * dilation)
        self.norms, self.cut = nn.ModuleList([norm(6), norm(6)]), 2 * dilation
        self.slopes = nn.ModuleList([nn.PReLU(), nn.PReLU()])
        self.residual, self.skip = nn.Conv1d(6, 4, 1), nn.Conv1d(6, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norms[0](self.slopes[0](self.wide(x)))
        y = self.depthwise(y)[..., : -self.cut]
        y = self.norms[1](self.slopes[1](y))
        return x + self.residual(y), self.skip(y)


class RawAudio(nn.Module):
    """Frames of 25 ms every 10 ms at 16 kHz, learned from samples, under a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(1, 6, kernel_size=400, stride=160)
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, samples: Tensor) -> Tensor:
        frames = torch.log1p(self.front(samples[:, None]).abs())
        return self.head(self.gru(frames.transpose(1, 2))[0])


class Spectrogram(nn.Module):
    """torch.stft without centring, log magnitudes, an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(16))
        self.lstm = nn.LSTM(9, 5, batch_first=True)

    def forward(self, samples: Tensor) -> Tensor:
        spectrum = torch.stft(
            samples, 16, hop_length=8, window=self.window, center=False, return_complex=True
        )
        magnitudes = (spectrum.real.square() + spectrum.imag.square() + 1e-4).log()
        return self.lstm(magnitudes.transpose(1, 2))[0]


class ConvSpectrogram(nn.Module):
    """The short-time Fourier transform as a convolution by a fixed basis; an LSTM; a VAD's head."""

    def __init__(self) -> None:
        super().__init__()
        steps = torch.arange(16) * torch.arange(9)[:, None] * (2 * math.pi / 16)
        basis = torch.cat([steps.cos(), steps.sin()])[:, None] * torch.hann_window(16)
        self.register_buffer("basis", basis)
        self.lstm, self.head = nn.LSTM(9, 5, batch_first=True), nn.Conv1d(5, 1, 1)

    def forward(self, samples: Tensor) -> Tensor:
        parts = F.conv1d(F.pad(samples, (12, 0))[:, None], self.basis, stride=4)
        magnitudes = (parts[:, :9] ** 2 + parts[:, 9:] ** 2 + 1e-6).sqrt()
        y = self.lstm(magnitudes.transpose(1, 2))[0].relu().transpose(1, 2)
        return torch.sigmoid(self.head(y)).squeeze(1)


class Mel(nn.Module):
    """Power spectra `[batch, time, 17]` to log mel bands, normalised, under a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mel", torch.rand(17, 6))
        self.register_buffer("mean", torch.randn(6))
        self.gru = nn.GRU(6, 5, batch_first=True)

    def forward(self, power: Tensor) -> Tensor:
        bands = torch.log(torch.clamp(power.square() @ self.mel, min=1e-5))
        return self.gru(bands - self.mean)[0]


class RnNoise(nn.Module):
    """Three GRUs, what went before joined to the input of each; gains and voice activity."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 4)
        self.vad, self.noise = nn.GRU(4, 4, batch_first=True), nn.GRU(16, 6, batch_first=True)
        self.denoise = nn.GRU(18, 7, batch_first=True)
        self.gains, self.voice = nn.Linear(7, 5), nn.Linear(4, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        dense = torch.tanh(self.dense(features))
        vad, _ = self.vad(dense)
        noise, _ = self.noise(torch.cat([dense, vad, features], dim=-1))
        denoise, _ = self.denoise(torch.cat([vad, noise, features], dim=-1))
        return torch.sigmoid(self.gains(denoise)), torch.sigmoid(self.voice(vad))


class GroupedGru(nn.Module):
    """DeepFilterNet's: the features in groups, a GRU for each, shuffled between layers."""

    def __init__(self, features: int, hidden: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.layers = nn.ModuleList(
            nn.GRU(size // groups, hidden // groups, batch_first=True)
            for size in (features, hidden)
            for _ in range(groups)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.layers[: self.groups], self.layers[self.groups :]
        parts = [gru(part)[0] for gru, part in zip(first, x.chunk(self.groups, -1), strict=True)]
        y = torch.cat(parts, -1)
        batch, frames, size = y.shape
        y = y.view(batch, frames, self.groups, -1).transpose(2, 3).reshape(batch, frames, size)
        parts = [gru(part)[0] for gru, part in zip(second, y.chunk(self.groups, -1), strict=True)]
        return torch.cat(parts, -1)


class DeepFilter(nn.Module):
    """Like DeepFilterNet: a grouped GRU, complex filters of three taps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (3, 3), padding=(0, 1))
        self.gru, self.taps = GroupedGru(16, 8, 2), nn.Linear(8, 3 * 4 * 2)

    def forward(self, energy: Tensor, spectrum: Tensor) -> Tensor:
        y = F.relu(self.conv(F.pad(energy.unsqueeze(1), (0, 0, 1, 1))))
        batch, frames = y.shape[0], y.shape[2]
        y = self.gru(y.permute(0, 2, 1, 3).reshape(batch, frames, 16))
        taps = self.taps(y).view(batch, frames, 3, 4, 2)
        past = F.pad(spectrum, (0, 0, 0, 0, 2, 0))
        window = torch.stack([past[:, :-2], past[:, 1:-1], past[:, 2:]], 2)
        real = window[..., 0] * taps[..., 0] - window[..., 1] * taps[..., 1]
        imaginary = window[..., 0] * taps[..., 1] + window[..., 1] * taps[..., 0]
        return torch.stack([real.sum(2), imaginary.sum(2)], -1)


class DualPath(nn.Module):
    """Like DPCRN: a bidirectional GRU over each frame's bands, a GRU over time in each."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (1, 3), padding=(0, 1))
        self.intra = nn.GRU(4, 3, batch_first=True, bidirectional=True)
        self.intra_fc, self.intra_norm = nn.Linear(6, 4), nn.LayerNorm(4)
        self.inter, self.inter_fc = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 4)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.unsqueeze(1)).permute(0, 2, 3, 1)
        batch, frames, bands, channels = y.shape
        intra = self.intra(y.reshape(batch * frames, bands, channels))[0]
        intra = self.intra_norm(self.intra_fc(intra)).reshape(batch, frames, bands, channels)
        y = (y + intra).permute(0, 2, 1, 3)
        inter = self.inter(y.reshape(batch * bands, frames, channels))[0]
        y = y + self.inter_fc(inter).reshape(batch, bands, frames, channels)
        return torch.sigmoid(self.out(y.permute(0, 3, 2, 1))).squeeze(1) * x


class IntraPath(nn.Module):
    """A bidirectional LSTM over the bands of each frame, its ends read; then a GRU over time."""

    def __init__(self) -> None:
        super().__init__()
        self.intra = nn.LSTM(1, 3, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(6, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, bands = x.shape
        ends = self.intra(x.reshape(batch * frames, bands, 1))[1][0]
        rows = torch.cat([ends[0], ends[1]], -1).reshape(batch, frames, 6)
        return self.gru(rows)[0]


class SubBand(nn.Module):
    """Like FullSubNet: one LSTM over time for all bands, `batch * bands` sequences of it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, bands = x.shape
        around = F.pad(x, (1, 1))
        units = torch.stack([around[..., :-2], x, around[..., 2:]], -1)
        rows = units.transpose(1, 2).reshape(batch * bands, frames, 3)
        mask = self.fc(self.lstm(rows)[0]).reshape(batch, bands, frames)
        return torch.sigmoid(mask).transpose(1, 2) * x


class Video(nn.Module):
    """Lips in `[batch, channels, time, height, width]`: Conv3d, means over space, a GRU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 3, (3, 3, 3), stride=(1, 2, 2), padding=(1, 1, 1), bias=False)
        self.norm, self.pool = nn.BatchNorm3d(3), nn.MaxPool3d((1, 2, 2))
        self.gru, self.fc = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, clip: Tensor) -> Tensor:
        y = self.pool(F.relu(self.norm(self.conv(clip))))
        return self.fc(self.gru(y.mean((-2, -1)).transpose(1, 2))[0])


class ImagesByFrame(nn.Module):
    """A small CNN for each picture of `[batch, time, channels, height, width]`, then an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.lstm = nn.LSTM(3, 4, batch_first=True)

    def forward(self, clip: Tensor) -> Tensor:
        batch, frames = clip.shape[:2]
        features = self.cnn(clip.flatten(0, 1))
        return self.lstm(features.view(batch, frames, -1))[0]


class NormedTcn(nn.Module):
    """A temporal convolutional network: causal, dilated, residual, with weight_norm."""

    def __init__(self, *, ahead: int = 0) -> None:
        super().__init__()
        self.ahead = ahead
        convs = [nn.Conv1d(4, 4, 3, dilation=2**i) for i in range(3)]
        self.convs = nn.ModuleList([weight_norm(conv) for conv in convs])

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            past = 2 * conv.dilation[0] - self.ahead
            x = F.relu(x + conv(F.pad(x, (past, self.ahead))))
        return x

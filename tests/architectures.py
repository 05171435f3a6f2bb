"""Streaming networks as people write them: each with example arguments and what is free in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import architectures_audio as audio
import architectures_sequence as sequence

Axes = Mapping[str, Mapping[int, str]]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Architecture:
    """A network to stream.

    Attributes:
        make: the module.
        shapes: those of its arguments.
        axes: which of their axes are free, by the argument's name.
        lengths: of sequences to hold it at; it takes them all.
        ids: how many tokens there are, where it takes tokens.
    """

    make: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    axes: Axes
    lengths: tuple[int, ...] = (13, 24, 41)
    ids: int = 0

    def module(self) -> nn.Module:
        """The network, its batch norms with statistics as if trained."""
        torch.manual_seed(0)
        module = self.make().eval().requires_grad_(False)
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                for value in (part.running_mean, part.running_var, part.weight, part.bias):
                    assert value is not None
                    value.uniform_(0.5, 1.5)
        return module

    def arguments(self, batch: int, frames: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random arguments in float64, or int64 ids."""
        generator = torch.Generator().manual_seed(seed)
        shapes = (self.sized(batch, frames, place) for place in range(len(self.shapes)))
        if self.ids:
            return tuple(torch.randint(self.ids, shape, generator=generator) for shape in shapes)
        return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)

    def example(self) -> tuple[Tensor, ...]:
        """The arguments to export with, floats in float32."""
        time = next(
            self.shapes[place][axis]
            for place, axes in enumerate(self.axes.values())
            for axis, name in axes.items()
            if name == "time"
        )
        args = self.arguments(2, time)
        return tuple(x.float() if x.is_floating_point() else x for x in args)

    def sized(self, batch: int, frames: int, place: int) -> Shape:
        """The shape of an argument."""
        free, sizes = list(self.axes.values())[place], {"batch": batch, "time": frames}
        shape = enumerate(self.shapes[place])
        return tuple(sizes.get(free.get(axis, ""), size) for axis, size in shape)


def over(time: int, *shape: int, name: str = "x") -> dict[str, Any]:
    """One argument, batch first, its time axis at `time`."""
    return {"shapes": (shape,), "axes": {name: {0: "batch", time: "time"}}}


SAMPLES = {"lengths": (64, 133, 202)}
TOKENS = {"shapes": ((2, 9),), "axes": {"tokens": {0: "batch", 1: "time"}}, "ids": 13}
SPEAKER = {0: "batch"}

ARCHITECTURES: dict[str, Architecture] = {
    # enhancement and separation
    "dtln": Architecture(audio.Dtln, **over(1, 2, 80, name="samples"), lengths=(64, 132, 200)),
    "gtcrn": Architecture(audio.GroupedTcrn, **over(2, 2, 12, 9, 2, name="spectrum")),
    "u-net over frequency": Architecture(audio.Unet, **over(2, 2, 1, 9, 13)),
    "u-net over time": Architecture(audio.TimeUnet, **over(2, 2, 2, 24), lengths=(16, 28, 48)),
    "conv-tasnet, cumulative norm": Architecture(
        partial(audio.ConvTasNet, audio.CumulativeNorm), **over(1, 2, 64, name="mixture"), **SAMPLES
    ),
    "conv-tasnet, channel norm": Architecture(
        partial(audio.ConvTasNet, audio.ChannelNorm), **over(1, 2, 64, name="mixture"), **SAMPLES
    ),
    "rnnoise": Architecture(audio.RnNoise, **over(1, 2, 9, 8, name="features")),
    "deepfilternet": Architecture(
        audio.DeepFilter,
        ((2, 9, 4), (2, 9, 4, 2)),
        {"energy": {0: "batch", 1: "time"}, "spectrum": {0: "batch", 1: "time"}},
    ),
    "dual path": Architecture(audio.DualPath, **over(1, 2, 9, 5)),
    "intra path": Architecture(audio.IntraPath, **over(1, 2, 9, 5)),
    "sub-bands": Architecture(audio.SubBand, **over(1, 2, 9, 5)),
    # front ends
    "raw audio": Architecture(
        audio.RawAudio, **over(1, 2, 1600, name="samples"), lengths=(400, 1200, 1999)
    ),
    "stft": Architecture(audio.Spectrogram, **over(1, 2, 64, name="samples"), **SAMPLES),
    "stft by convolution": Architecture(
        audio.ConvSpectrogram, **over(1, 2, 64, name="samples"), **SAMPLES
    ),
    "mel": Architecture(audio.Mel, **over(1, 2, 9, 17, name="power")),
    "deltas": Architecture(sequence.Deltas, **over(1, 2, 9, 3)),
    "context by shifts": Architecture(sequence.Context, **over(1, 2, 9, 3)),
    "context by ends": Architecture(sequence.ContextByEnds, **over(1, 2, 9, 3)),
    "stacked frames": Architecture(sequence.Stacked, **over(1, 2, 12, 4), lengths=(9, 24, 45)),
    "smoothed energies": Architecture(sequence.Smoothed, **over(1, 2, 9, 4, name="energy")),
    "running mean": Architecture(sequence.RunningMean, **over(1, 2, 9, 4)),
    # classifiers and recognisers
    "crnn": Architecture(partial(audio.Crnn, (1, 2), readout=True), **over(1, 2, 12, 8)),
    "crnn, pooled in time": Architecture(
        partial(audio.Crnn, (2, 2), readout=False), **over(1, 2, 16, 8)
    ),
    "matchboxnet": Architecture(sequence.MatchboxNet, **over(2, 2, 4, 16)),
    "quartznet": Architecture(sequence.QuartzNet, **over(1, 2, 16, 4)),
    "highway": Architecture(sequence.Highway, **over(1, 2, 9, 4)),
    "classifier": Architecture(sequence.Classifier, **over(1, 2, 9, 3)),
    "classifier by its state": Architecture(sequence.ByState, **over(1, 2, 9, 3)),
    "forecaster": Architecture(sequence.Forecaster, **over(1, 2, 9, 3)),
    "time distributed": Architecture(sequence.Distributed, **over(1, 2, 9, 4)),
    "squeeze and excitation": Architecture(sequence.Squeezed, **over(1, 2, 9, 5)),
    "video": Architecture(audio.Video, **over(2, 2, 1, 9, 8, 8, name="clip")),
    "pictures": Architecture(audio.ImagesByFrame, **over(1, 2, 9, 1, 7, 7, name="clip")),
    # convolutions
    "tcn": Architecture(audio.NormedTcn, **over(2, 2, 4, 16)),
    "tcn with look-ahead": Architecture(partial(audio.NormedTcn, ahead=1), **over(2, 2, 4, 16)),
    "tcn and attention": Architecture(sequence.Windowed, **over(1, 2, 9, 4)),
    "gated convolutions": Architecture(sequence.Gated, **TOKENS),
    "wavenet": Architecture(sequence.WaveNet, **over(2, 2, 1, 20)),
    "wavenet, unpadded": Architecture(sequence.Unpadded, **over(2, 2, 1, 30), lengths=(16, 29, 60)),
    "pools": Architecture(sequence.Pools, **over(1, 2, 9, 3)),
    "repeated frames": Architecture(
        partial(sequence.Upsampled, nearest=True), **over(2, 2, 3, 16), lengths=(12, 24, 40)
    ),
    "transposed convolution": Architecture(
        partial(sequence.Upsampled, nearest=False), **over(2, 2, 3, 16), lengths=(12, 25, 40)
    ),
    "sub-pixels": Architecture(sequence.Subpixels, **over(1, 2, 9, 4)),
    "slow and fast": Architecture(sequence.Repeated, **over(1, 2, 16, 4), lengths=(12, 24, 40)),
    # several inputs and outputs
    "personal": Architecture(
        sequence.Personal,
        ((2, 9, 4), (2, 9, 2), (2, 3)),
        {"audio": {0: "batch", 1: "time"}, "other": {0: "batch", 1: "time"}, "speaker": SPEAKER},
    ),
    "film": Architecture(
        sequence.Film, ((2, 9, 4), (2, 3)), {"x": {0: "batch", 1: "time"}, "speaker": SPEAKER}
    ),
    "heads": Architecture(sequence.Heads, **over(1, 2, 12, 4)),
    "einsum": Architecture(sequence.Einsum, **over(1, 2, 9, 4)),
    "mixture of experts": Architecture(sequence.Mixture, **over(1, 2, 9, 4)),
    # recurrent layers and loops
    "language model": Architecture(partial(sequence.LanguageModel, tied=False), **TOKENS),
    "tied embeddings": Architecture(partial(sequence.LanguageModel, tied=True), **TOKENS),
    "tagger with a mask": Architecture(sequence.Sinks, **TOKENS),
    "residual lstms": Architecture(partial(sequence.Residual, 3), **over(1, 2, 9, 4)),
    "projected lstms": Architecture(partial(sequence.Residual, 2, proj_size=4), **over(1, 2, 9, 4)),
    "minimal gated unit": Architecture(sequence.MinimalGated, **over(1, 2, 9, 4)),
    "peephole lstm": Architecture(sequence.Peephole, **over(1, 2, 9, 4)),
    "sru": Architecture(sequence.Sru, **over(1, 2, 9, 4)),
    "qrnn": Architecture(sequence.Qrnn, **over(1, 2, 9, 4)),
    "cells": Architecture(sequence.Cells, **over(1, 2, 9, 4)),
    "time first": Architecture(sequence.TimeFirst, ((9, 2, 4),), {"x": {0: "time", 1: "batch"}}),
    "unbatched": Architecture(sequence.Unbatched, ((9, 3),), {"x": {0: "time"}}),
}


def along(layer: nn.Module) -> nn.Module:
    """A layer over `[batch, 4, time]`, run on the frames `[batch, time, 4]` of a GRU."""
    return sequence.Behind(layer)


# What needs the whole sequence, and what the refusal says.
REFUSED: dict[str, tuple[Architecture, str]] = {
    name: (Architecture(make, **over(1, 2, 9, 4)), message)
    for name, (make, message) in {
        "bidirectional": (
            lambda: audio.Mask(4, bidirectional=True),
            "LSTM node 'lstm.l0'.*reads the sequence from its end",
        ),
        "mean over time": (
            lambda: along(nn.AdaptiveAvgPool1d(1)),
            "runs over time",
        ),
        "instance norm": (lambda: along(nn.InstanceNorm1d(4)), "InstanceNormalization runs over"),
        "attention": (sequence.Attention, "MatMul node .* multiplies frames by other frames"),
        "reflect padding": (
            lambda: along(nn.ReflectionPad1d((2, 0))),
            "pads the sequence by its own frames",
        ),
        "interpolated": (
            lambda: along(nn.Upsample(scale_factor=2, mode="linear")),
            "computes with the number of frames",
        ),
        "frames by unfold": (sequence.UnfoldedFrames, "computes with the number of frames"),
    }.items()
}

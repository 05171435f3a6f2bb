"""Batches of clips, varied while training: other voices, made from those that were heard."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rnnx.recipes.keywords_data import FEATURES, Clips

_BANDS = 40
_WARP, _TEMPO = 0.15, 0.25  # longer and shorter vocal tracts, slower and faster speech
_SHIFT, _NOISE = 0.5, 0.1  # other microphones, and noise, in standard deviations


def batches(clips: Clips, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """All clips in an order drawn anew, those of a batch of about the same length.

    Yields:
        Frames, padded, float32 `[batch, time, 13]`; lengths and digits, int64 `[batch]`.
    """
    lengths = torch.tensor([len(frames) for frames in clips.frames])
    near = (lengths + 3 * torch.rand(len(clips))).argsort()
    groups = [near[i : i + size] for i in range(0, len(near), size)]
    for place in torch.randperm(len(groups)):
        chosen = groups[place]
        frames = pad_sequence([torch.from_numpy(clips.frames[i]) for i in chosen], batch_first=True)
        yield frames, lengths[chosen], torch.from_numpy(clips.digits)[chosen]


def vary(x: Tensor, lengths: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Each clip as if another had said it, elsewhere; the whole batch faster or slower.

    Args:
        x: MFCCs, float32 `[batch, time, 13]`.
        lengths: frames of each clip, int64 `[batch]`.
        std: of each feature, float32 `[13]`.

    Returns:
        The same of other clips.
    """
    stretch = 1 + _TEMPO * (2 * torch.rand(()).item() - 1)
    frames = max(1, int(x.shape[1] * stretch))
    x = nn.functional.interpolate(x.transpose(1, 2), frames, mode="linear").transpose(1, 2)
    warps = 1 + _WARP * (2 * torch.rand(len(x)) - 1)
    x = x @ torch.stack([warping(warp) for warp in warps])
    shift = _SHIFT * torch.randn_like(x[:, :1]) + _NOISE * torch.randn_like(x)
    return x + shift * std, (lengths * stretch).long().clamp(1, frames)


def warping(warp: Tensor | float) -> Tensor:
    """The matrix `[13, 13]` that stretches the spectrum behind MFCCs `[..., 13]` by a factor.

    MFCCs are the discrete cosine transform of a log spectrum: this reads the spectrum at other
    places and transforms it back.
    """
    places = torch.arange(_BANDS) + 0.5
    return _cosines((places * warp).clamp(max=_BANDS)) @ _cosines(places).T


def _cosines(places: Tensor) -> Tensor:
    """The transform's cosines at places on the spectrum, orthonormal at whole ones and a half."""
    scale = torch.full((FEATURES, 1), (2 / _BANDS) ** 0.5)
    scale[0] = (1 / _BANDS) ** 0.5
    return scale * torch.cos(torch.pi / _BANDS * torch.arange(FEATURES)[:, None] * places)

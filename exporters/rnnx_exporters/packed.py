"""Carries packed sequences through torch.export as padded sequences with their lengths.

torch's `PackedSequence` holds the frames of all sequences without padding, so its size depends on
the lengths, and torch.export cannot follow it. While an export runs, `pack_padded_sequence` gives a
PackedSequence whose data is the padded sequence, time first and flat, `[time * batch, features]`.
The recurrent layers take its lengths as `sequence_lens`; `pad_packed_sequence` unfolds it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor

op: Any = opset18
_VF = torch._C._VariableFunctions
_check: Any = torch._check


@dataclass(frozen=True, slots=True)
class Packed:
    """What a PackedSequence stands for while an export runs.

    Attributes:
        batch_sizes: the tensor by which it is known.
        lengths: the length of each sequence, `[batch]`, int64.
        padded: the padded sequence it was made from, `[time, batch, ...]`.
    """

    batch_sizes: Tensor
    lengths: Tensor
    padded: Tensor

    def unfold(self, data: Tensor) -> Tensor:
        """Flat data `[time * batch, ...]` as `[time, batch, ...]`."""
        unfolded: Tensor = torch.ops.rnnx.unfold(data, self.padded)
        return unfolded


class _Longest(int):
    """Stands for the length of the longest sequence, which is not known; no total exceeds it."""

    def __gt__(self, total: object) -> bool:
        return False


class PackedSequences:
    """The packed sequences met in one export, and torch's functions on them."""

    def __init__(self) -> None:
        self._packed: list[Packed] = []
        self._batches: list[tuple[Tensor, int | torch.SymInt]] = []

    def handlers(self) -> dict[Any, Callable[..., Any]]:
        """For each of torch's functions that packed sequences pass, what runs instead."""
        return {
            _VF._pack_padded_sequence: self._pack,
            _VF._pad_packed_sequence: self._pad,
            Tensor.__getitem__: self._first,
            Tensor.size: self._size,
            torch.zeros: self._zeros,
        }

    def find(self, batch_sizes: Any) -> Packed | None:
        """The packed sequence known by this tensor."""
        return next((p for p in self._packed if p.batch_sizes is batch_sizes), None)

    def _pack(self, x: Tensor, lengths: Tensor, batch_first: bool) -> tuple[Tensor, Tensor]:
        x = x.transpose(0, 1) if batch_first else x
        _check(lengths.shape[0] == x.shape[1])
        batch_sizes = lengths.new_full((x.shape[0],), x.shape[1])
        self._packed.append(Packed(batch_sizes, lengths, x))
        return fold(x), batch_sizes

    def _pad(
        self, data: Tensor, batch_sizes: Tensor, batch_first: bool, value: float, total: int
    ) -> tuple[Tensor, Tensor]:
        packed = self.find(batch_sizes)
        if packed is None:
            return _VF._pad_packed_sequence(data, batch_sizes, batch_first, value, total)
        y = torch.ops.rnnx.pad(packed.unfold(data), packed.lengths, float(value))
        if isinstance(total, _Longest):
            y = torch.ops.rnnx.trim(y, packed.lengths)
        return (y.transpose(0, 1) if batch_first else y), packed.lengths

    def _first(self, tensor: Tensor, index: Any) -> Any:
        """`batch_sizes[0]` is the batch; note it for `zeros`."""
        result = Tensor.__getitem__(tensor, index)
        packed = self.find(tensor)
        if packed is not None and index == 0:
            self._batches.append((result, packed.padded.shape[1]))
        return result

    def _size(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        """`batch_sizes.size(0)` is the longest length."""
        is_length = args == (0,) and self.find(tensor) is not None
        return _Longest() if is_length else Tensor.size(tensor, *args, **kwargs)

    def _zeros(self, *sizes: Any, **kwargs: Any) -> Tensor:
        """Initial states have the batch as a size, not as a tensor."""
        return torch.zeros(*(self._as_size(size) for size in sizes), **kwargs)

    def _as_size(self, size: Any) -> Any:
        return next((batch for tensor, batch in self._batches if tensor is size), size)


def fold(x: Tensor) -> Tensor:
    """`x` [time, batch, ...] flat, `[time * batch, ...]`.

    An operator of its own, since torch's own guards on strides here and freezes the batch.
    """
    folded: Tensor = torch.ops.rnnx.fold(x)
    return folded


@torch.library.custom_op("rnnx::fold", mutates_args=())
def _fold(x: Tensor) -> Tensor:
    return x.flatten(0, 1).clone()


@_fold.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[0] * x.shape[1], *x.shape[2:])


@torch.library.custom_op("rnnx::unfold", mutates_args=())
def _unfold(data: Tensor, like: Tensor) -> Tensor:
    return data.reshape(*like.shape[:2], *data.shape[1:]).clone()


@_unfold.register_fake
def _(data: Tensor, like: Tensor) -> Tensor:
    return data.new_empty(*like.shape[:2], *data.shape[1:])


@torch.library.custom_op("rnnx::pad", mutates_args=())
def _pad(x: Tensor, lengths: Tensor, value: float) -> Tensor:
    """`x` [time, batch, ...] with `value` behind the end of each sequence."""
    frames = torch.arange(x.shape[0], device=x.device)[:, None]
    mask = (frames < lengths.to(x.device)).reshape(*x.shape[:2], *[1] * (x.dim() - 2))
    return torch.where(mask, x, torch.full((), value, dtype=x.dtype, device=x.device))


@_pad.register_fake
def _(x: Tensor, lengths: Tensor, value: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("rnnx::trim", mutates_args=())
def _trim(x: Tensor, lengths: Tensor) -> Tensor:
    """`x` [time, ...] cut to the longest length."""
    return x[: int(lengths.max())].clone()


@_trim.register_fake
def _(x: Tensor, lengths: Tensor) -> Tensor:
    return x.new_empty(torch.library.get_ctx().new_dynamic_size(), *x.shape[1:])


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """For torch.onnx.export: the operators above and the functions that write them in ONNX."""
    return {
        torch.ops.rnnx.fold.default: _onnx_fold,
        torch.ops.rnnx.unfold.default: _onnx_unfold,
        torch.ops.rnnx.pad.default: _onnx_pad,
        torch.ops.rnnx.trim.default: _onnx_trim,
    }


def _onnx_fold(x: Any) -> Any:
    return op.Reshape(x, op.Concat(op.Constant(value_ints=[-1]), op.Shape(x, start=2), axis=0))


def _onnx_unfold(data: Any, like: Any) -> Any:
    sizes = op.Concat(op.Shape(like, start=0, end=2), op.Shape(data, start=1), axis=0)
    return op.Reshape(data, sizes)


def _onnx_pad(x: Any, lengths: Any, value: float) -> Any:
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    frames = op.Range(zero, op.Squeeze(op.Shape(x, start=0, end=1)), one)
    mask = op.Less(op.Unsqueeze(frames, [1]), op.Unsqueeze(lengths, [0]))
    mask = op.Unsqueeze(mask, op.Constant(value_ints=list(range(2, len(x.shape)))))
    return op.Where(mask, x, op.CastLike(op.Constant(value_float=value), x))


def _onnx_trim(x: Any, lengths: Any) -> Any:
    longest = op.ReduceMax(lengths, keepdims=True)
    return op.Slice(x, [0], op.Reshape(longest, [1]), [0])

"""How an encoder-decoder nests its memory and state, and where their batch and time axes are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from rnnx_exporters.layout import BATCH, TIME, Axes
from rnnx_runtime.errors import ExportError


@dataclass(frozen=True, slots=True)
class Nest:
    """The nesting of memory or state, found by experiment.

    Attributes:
        what: `memory` or `state`.
        spec: the nesting as the encoder gives it.
        paths: the place of each tensor, `['h'][0]` say.
        batch_axes: of each tensor, the axis that counts the batch.
        axes: of each tensor with the batch put first, its free axes by number.
    """

    what: str
    spec: pytree.TreeSpec
    paths: tuple[str, ...]
    batch_axes: tuple[int, ...]
    axes: tuple[Axes, ...]

    def flatten(self, value: Any) -> list[Tensor]:
        """The tensors of `value` in order, the batch first.

        Raises:
            ExportError: it is nested in another way.
        """
        found = dict(_leaves(value))
        if found.keys() != set(self.paths):
            raise ExportError(
                f"encode gives the {self.what} {_listed(self.what, self.paths)}, but step"
                f" {_listed(self.what, tuple(found))}",
                hint="step must return its state nested as encode does.",
            )
        return _batch_first([found[path] for path in self.paths], self.batch_axes)

    def nest(self, tensors: list[Tensor]) -> Any:
        """The value whose flattened form is `tensors`."""
        pairs = zip(tensors, self.batch_axes, strict=True)
        return pytree.tree_unflatten([tensor.movedim(0, axis) for tensor, axis in pairs], self.spec)


def find_nest(what: str, values: tuple[Any, ...], names: dict[tuple[int, int], str]) -> Nest:
    """The nesting of memory or state, told from three values of it.

    Args:
        what: `memory` or `state`.
        values: for some sources, for one source more, and for more frames.
        names: of the time axes met so far, by their sizes in the first and last value.

    Raises:
        ExportError: a tensor has no axis that counts the batch, or more than one.
    """
    paths = tuple(path for path, _ in _leaves(values[0]))
    base, wider, longer = ([leaf for _, leaf in _leaves(value)] for value in values)
    for path, tensor in zip(paths, base, strict=True):
        _hold_tensor(f"{what}{path}", tensor)
    places = tuple(
        _batch_axis(f"{what}{path}", one, two)
        for path, one, two in zip(paths, base, wider, strict=True)
    )
    pairs = zip(_batch_first(base, places), _batch_first(longer, places), strict=True)
    axes = tuple(_free_axes(one, two, names) for one, two in pairs)
    return Nest(what, pytree.tree_structure(values[0]), paths, places, axes)


def _leaves(value: Any) -> list[tuple[str, Any]]:
    leaves, _ = pytree.tree_flatten_with_path(value)
    return [(pytree.keystr(path), leaf) for path, leaf in leaves]


def _hold_tensor(name: str, leaf: Any) -> None:
    if not isinstance(leaf, Tensor):
        raise ExportError(
            f"{name} is of type {type(leaf).__name__}, not a tensor",
            hint="Memory and state are tensors, nested in tuples, lists and dicts.",
        )


def _batch_axis(name: str, base: Tensor, wider: Tensor) -> int:
    """The only axis that grows by one with one source more."""
    grown = _changed(base, wider)
    if len(grown) != 1 or wider.shape[grown[0]] != base.shape[grown[0]] + 1:
        raise ExportError(
            f"{name} has no axis that counts the batch: its shape is {list(base.shape)} for some"
            f" sources, {list(wider.shape)} for one more",
            hint="Expand constants over the batch, and keep the batch an axis of its own.",
        )
    return grown[0]


def _free_axes(base: Tensor, longer: Tensor, names: dict[tuple[int, int], str]) -> Axes:
    axes = {0: BATCH}
    for axis in _changed(base, longer):
        sizes = (base.shape[axis], longer.shape[axis])
        axes[axis] = names.setdefault(sizes, f"{TIME}{len(names)}" if names else TIME)
    return axes


def _changed(one: Tensor, two: Tensor) -> list[int]:
    return [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]


def _batch_first(tensors: list[Tensor], batch_axes: Iterable[int]) -> list[Tensor]:
    return [tensor.movedim(axis, 0) for tensor, axis in zip(tensors, batch_axes, strict=True)]


def _listed(what: str, paths: tuple[str, ...]) -> str:
    return ", ".join(f"{what}{path}" for path in paths) or f"no {what}"

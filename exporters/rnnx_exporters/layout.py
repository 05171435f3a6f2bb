"""Which axes of a model's inputs are free: given by the user, or found by experiment."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from rnnx_exporters.describe import BATCH as BATCH
from rnnx_exporters.describe import TIME as TIME
from rnnx_runtime.errors import ExportError, InputError

_MOST_PLACES = 500
_ASK = (
    "Name the free axes: dynamic_shapes={'x': {0: 'batch', 1: 'time'}}"
    " (on the command line: --input 'x=float32[batch,time,40]')."
)

Axes = dict[int, str]
Place = tuple[int | None, ...]  # for each leaf the axis that a name stands at
Seen = tuple[int, int] | None  # the batch and length that reach a layer, where it runs


@dataclass(frozen=True, slots=True)
class Sizes:
    """What sizes the axes of one name may have.

    Attributes:
        least: the least size, where there is one.
        multiples: of what the size is a multiple, where it must be.
    """

    least: Mapping[str, int] = field(default_factory=dict)
    multiples: Mapping[str, int] = field(default_factory=dict)

    def dim(self, name: str) -> Any:
        """An axis of that name, as torch.export takes it."""
        multiple = self.multiples.get(name)
        if multiple is None:
            return torch.export.Dim(name, min=self.least.get(name))
        return multiple * torch.export.Dim(f"{name}_by_{multiple}")


@dataclass(frozen=True, slots=True)
class Layout:
    """Example arguments and the names of their free axes.

    Attributes:
        args: the example arguments.
        axes: for each leaf of `args` in order, its free axes by number; empty where none is.
        lengths: the leaves that hold the lengths of the sequences.
    """

    args: tuple[Any, ...]
    axes: tuple[Axes, ...]
    lengths: frozenset[int] = frozenset()

    @property
    def sizes(self) -> dict[str, int]:
        """The example's size of each named axis."""
        return {
            name: leaf.shape[axis]
            for leaf, axes in zip(_leaves(self.args), self.axes, strict=True)
            for axis, name in axes.items()
        }

    def tensors(self) -> list[tuple[Tensor, Axes]]:
        """The tensors among the leaves, with their free axes."""
        pairs = zip(_leaves(self.args), self.axes, strict=True)
        return [(leaf, axes) for leaf, axes in pairs if isinstance(leaf, Tensor)]

    def dims(self, sizes: Sizes) -> Any:
        """The free axes as torch.export takes them, in the structure of `args`."""
        dims = {name: sizes.dim(name) for name in self.sizes}
        specs = [{axis: dims[name] for axis, name in axes.items()} or None for axes in self.axes]
        return pytree.tree_unflatten(specs, pytree.tree_structure(self.args))

    def resized(self, sizes: Mapping[str, int]) -> Layout:
        """The same layout with the named axes of the example repeated or thinned to `sizes`."""
        leaves = [
            _resize(leaf, axes, sizes)
            for leaf, axes in zip(_leaves(self.args), self.axes, strict=True)
        ]
        for position in self.lengths:
            leaves[position] = _falling(leaves[position], (self.sizes | dict(sizes))[TIME])
        args = pytree.tree_unflatten(leaves, pytree.tree_structure(self.args))
        return replace(self, args=args)

    def with_lengths(self, tensors: Container[int]) -> Layout:
        """The same layout, told which of its tensors (by place) hold lengths."""
        places = [i for i, leaf in enumerate(_leaves(self.args)) if isinstance(leaf, Tensor)]
        found = (leaf for place, leaf in enumerate(places) if place in tensors)
        return replace(self, lengths=frozenset(found))

    def traceable(self) -> Layout:
        """The same layout, contiguous and no free axis of size 1: torch.export guards on both."""
        return self.resized({name: max(size, 2) for name, size in self.sizes.items()})


def given(module: torch.nn.Module, args: tuple[Any, ...], dynamic_shapes: Any) -> Layout:
    """The layout the user names, by argument name or in the order of the arguments.

    Raises:
        InputError: it names no argument, an axis that is not there, or sizes that disagree.
    """
    layout = Layout(args, tuple(_read(args, _in_order(module, args, dynamic_shapes))))
    for leaf, axes in zip(_leaves(args), layout.axes, strict=True):
        _hold(leaf, axes)
    _hold_sizes(layout)
    return layout


def infer(module: torch.nn.Module, args: tuple[Any, ...]) -> Layout:
    """The layout under which batch and time reach the recurrent layers as batch and time.

    Each place for time that the sizes allow is tried: the model is run with another length, and its
    first recurrent layer must see just that. So is each place for the batch, with a larger one. Of
    what fits, the layout that names the most axes is taken.

    Raises:
        ExportError: no layout fits, or more than one does.
        InputError: an example is empty.
    """
    leaves = _leaves(args)
    if any(isinstance(leaf, Tensor) and not leaf.numel() for leaf in leaves):
        raise InputError("an example argument holds nothing", hint="Give a sequence and a frame.")
    first = _first_recurrent(module)
    places = list(itertools.islice(_places(leaves), _MOST_PLACES + 1))
    if len(places) > _MOST_PLACES:
        raise ExportError("the inputs have too many axes of equal size to tell apart", hint=_ASK)
    run = partial(_seen, module, first)
    seen = run(Layout(args, ({},) * len(leaves)))
    times = [place for place in places if _is_time(run, seen, _named(args, place, TIME))]
    batches = [place for place in places if _is_batch(run, seen, _named(args, place, BATCH))]
    pairs = itertools.product(batches, times)
    fitting = [_both(args, batch, time) for batch, time in pairs if _differ(batch, time)]
    most = max((sum(map(len, layout.axes)) for layout in fitting), default=0)
    best = [layout for layout in fitting if sum(map(len, layout.axes)) == most]
    if len(best) != 1:
        raise ExportError(
            f"the batch and time axes of the inputs are not clear: {len(best)} ways fit", hint=_ASK
        )
    return best[0]


def _leaves(args: Any) -> list[Any]:
    leaves: list[Any] = pytree.tree_leaves(args)
    return leaves


def _in_order(module: torch.nn.Module, args: tuple[Any, ...], dynamic_shapes: Any) -> list[Any]:
    if not isinstance(dynamic_shapes, Mapping):
        return list(dynamic_shapes)
    values = by_name(module, args)
    unknown = [name for name in dynamic_shapes if name not in values]
    if unknown:
        raise InputError(
            f"dynamic_shapes names {', '.join(map(repr, unknown))}, but the model's arguments are"
            f" {', '.join(values)}"
        )
    named = [dynamic_shapes.get(name) for name in values]
    rest = _variadic(module)
    if rest not in values:
        return named
    return [*named[:-1], *_for_each(rest, values[rest], named[-1])]


def _for_each(name: str, values: Sequence[Any], specs: Any) -> Sequence[Any]:
    """The specs of the arguments that `*name` takes."""
    if specs is None:
        return [None] * len(values)
    if not isinstance(specs, list | tuple) or len(specs) != len(values):
        raise InputError(
            f"dynamic_shapes holds {specs!r} for the {len(values)} values of *{name}",
            hint=f"Name the axes of each: dynamic_shapes={{{name!r}: ({{0: 'batch'}}, ...)}}.",
        )
    return specs


def by_name(module: torch.nn.Module, values: Sequence[Any]) -> dict[str, Any]:
    """The arguments of `forward` by name, those of `*args` in a tuple, as torch.export has them."""
    return dict(inspect.signature(module.forward).bind(*values).arguments)


def _variadic(module: torch.nn.Module) -> str:
    """The name of the argument of `forward` that takes all others, `*args` say, or ``""``."""
    parameters = inspect.signature(module.forward).parameters.values()
    return next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")


def _read(value: Any, spec: Any) -> Iterator[Axes]:
    """The free axes of each leaf of `value`, from the user's nested `spec`."""
    if isinstance(value, list | tuple):
        specs = list(spec) if isinstance(spec, list | tuple) else [None] * len(value)
        if len(specs) != len(value):
            raise InputError(f"dynamic_shapes has {len(specs)} entries for {len(value)} values")
        for item, part in zip(value, specs, strict=True):
            yield from _read(item, part)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _read(item, spec.get(key) if isinstance(spec, Mapping) else None)
    elif value is None or spec is None:
        yield {}
    elif not isinstance(spec, Mapping | list | tuple):
        raise InputError(f"dynamic_shapes holds {spec!r} where axes are named", hint=_ASK)
    else:
        pairs = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
        yield {axis: _name(dim) for axis, dim in pairs if dim is not None}


def _name(dim: Any) -> str:
    name = dim if isinstance(dim, str) else getattr(dim, "__name__", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"the free axis {dim!r} has no name", hint=_ASK)
    return name


def _hold(leaf: Any, axes: Axes) -> None:
    if axes and not isinstance(leaf, Tensor):
        raise InputError(f"dynamic_shapes names axes of {leaf!r}, which is not a tensor")
    wrong = [axis for axis in axes if axis not in range(leaf.dim())]
    if wrong:
        raise InputError(f"dynamic_shapes names axis {wrong[0]!r} of a tensor of {leaf.dim()} axes")


def _hold_sizes(layout: Layout) -> None:
    for leaf, axes in layout.tensors():
        for axis, name in axes.items():
            if leaf.shape[axis] != layout.sizes[name] or not leaf.shape[axis]:
                raise InputError(
                    f"axis {name!r} of the example has the sizes {leaf.shape[axis]} and"
                    f" {layout.sizes[name]}; it must have one size, and at least 1"
                )


def _resize(leaf: Any, axes: Axes, sizes: Mapping[str, int]) -> Any:
    for axis, name in axes.items():
        if name in sizes:
            # In order, so that lengths that are sorted stay so.
            index = torch.arange(sizes[name], device=leaf.device) * leaf.shape[axis] // sizes[name]
            leaf = leaf.index_select(axis, index)
    return leaf


def _falling(lengths: Tensor, frames: int) -> Tensor:
    """Lengths from `frames` down to 1: ragged, and sorted as torch may ask."""
    return torch.linspace(frames, 1, len(lengths)).round().to(lengths.dtype)


def _first_recurrent(module: torch.nn.Module) -> torch.nn.RNNBase:
    for layer in module.modules():
        if isinstance(layer, torch.nn.RNNBase):
            return layer
    raise ExportError(
        "the model has no recurrent layer that tells its batch and time axes", hint=_ASK
    )


def _places(leaves: Sequence[Any]) -> Iterator[Place]:
    """Where one name can stand: nowhere, or at axes of one size, at most one of each leaf."""
    shapes = [tuple(leaf.shape) if isinstance(leaf, Tensor) else () for leaf in leaves]
    nowhere = (None,) * len(shapes)
    yield nowhere
    for size in dict.fromkeys(itertools.chain(*shapes)):
        choices = [[None, *(i for i, s in enumerate(shape) if s == size)] for shape in shapes]
        yield from (place for place in itertools.product(*choices) if place != nowhere)


def _differ(batch: Place, time: Place) -> bool:
    return all(b is None or b != t for b, t in zip(batch, time, strict=True))


def _named(args: tuple[Any, ...], place: Place, name: str) -> Layout:
    return Layout(args, tuple({} if axis is None else {axis: name} for axis in place))


def _both(args: tuple[Any, ...], batch: Place, time: Place) -> Layout:
    pairs = zip(_named(args, batch, BATCH).axes, _named(args, time, TIME).axes, strict=True)
    return Layout(args, tuple(of_batch | of_time for of_batch, of_time in pairs))


def _is_time(run: Callable[[Layout], Seen], seen: Seen, layout: Layout) -> bool:
    """Whether the first recurrent layer sees another length, and the same batch."""
    if seen is None or not layout.sizes:
        return False
    # A multiple, since a network may take no other length.
    longer = run(layout.resized({TIME: 3 * layout.sizes[TIME]}))
    return longer is not None and longer[0] == seen[0] and longer[1] != seen[1]


def _is_batch(run: Callable[[Layout], Seen], seen: Seen, layout: Layout) -> bool:
    """Whether the first recurrent layer sees one more sequence, as long; or there is no batch."""
    if seen is None or not layout.sizes:
        return True
    return run(layout.resized({BATCH: layout.sizes[BATCH] + 1})) == (seen[0] + 1, seen[1])


def _seen(module: torch.nn.Module, first: torch.nn.RNNBase, layout: Layout) -> Seen:
    """The batch and length the layer sees, or None if the model cannot run."""
    seen: list[tuple[int, int]] = []

    def look(layer: torch.nn.RNNBase, args: tuple[Any, ...]) -> None:
        if isinstance(args[0], PackedSequence):
            seen.append(packed.padded)
            return
        shape = args[0].shape
        batch, frames = (0, 1) if layer.batch_first else (1, 0)
        seen.append((shape[batch], shape[frames]) if len(shape) == 3 else (0, shape[0]))

    handle = first.register_forward_pre_hook(look)
    try:
        with torch.no_grad(), _Packing() as packed:
            module(*layout.args)
    except Exception:  # whatever the model raises, this is not its layout
        return None
    finally:
        handle.remove()
    return seen[0] if seen else None


class _Packing(TorchFunctionMode):
    """Notes the batch and length of what is packed last, its padding included."""

    padded = (0, 0)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch._VF._pack_padded_sequence:
            x, _, batch_first = args
            self.padded = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
        return func(*args, **(kwargs or {}))

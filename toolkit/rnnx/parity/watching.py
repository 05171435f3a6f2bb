"""What a torch model computes on the way: the tensors of its modules and recurrent layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from rnnx.parity.reference import TorchReference

Array = npt.NDArray[Any]

# Ports of a recurrent layer, as ONNX has them: by the position among a node's inputs and outputs.
INPUTS = {0: "X", 5: "initial_h", 6: "initial_c"}
OUTPUTS = {0: "Y", 1: "Y_h", 2: "Y_c"}


class Place(NamedTuple):
    """Where a tensor stands.

    Attributes:
        module: the torch module's name; for an output or state of the artifact, "".
        call: which call of the module, from 0.
        layer: the layer inside a recurrent module, else None.
        port: `"output"` of a module, a port of a layer as ONNX names it, or the name of an output
            or state of the artifact.
    """

    module: str
    call: int
    layer: int | None
    port: str

    @property
    def is_start(self) -> bool:
        """Whether it is a layer's state before the first frame."""
        return self.layer is not None and self.port in ("initial_h", "initial_c")


def watched(
    reference: TorchReference, feeds: Mapping[str, Array], states: Mapping[str, Array]
) -> dict[Place, Array]:
    """Run the model once; every float tensor of which an artifact may have its own.

    Args:
        reference: the model.
        feeds: the inputs by the artifact's names.
        states: the recurrent states before the first frame, by name.
    """
    tensors: dict[Place, Array] = {}
    with _watching(reference.module, tensors):
        outputs, after = reference.run(feeds, states)
    ends = {Place("", 0, None, name): value for name, value in {**outputs, **after}.items()}
    return {place: value for place, value in {**tensors, **ends}.items() if value.dtype.kind == "f"}


@contextmanager
def _watching(model: torch.nn.Module, tensors: dict[Place, Array]) -> Iterator[None]:
    """Note the tensors of every module but the model itself, whose outputs are the artifact's."""
    calls: Counter[str] = Counter()
    with ExitStack() as stack:
        for path, module in model.named_modules():
            hook = _layers_hook if isinstance(module, torch.nn.RNNBase) else _output_hook
            if path or hook is _layers_hook:
                noting = hook(path, calls, tensors)
                stack.callback(module.register_forward_hook(noting, with_kwargs=True).remove)
        yield


def _output_hook(path: str, calls: Counter[str], tensors: dict[Place, Array]) -> Any:
    def hook(module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        if len(leaves) == 1:  # of several nobody can tell which wire is which
            tensors[Place(path, calls[path], None, "output")] = leaves[0].numpy().copy()
        calls[path] += 1

    return hook


def _layers_hook(path: str, calls: Counter[str], tensors: dict[Place, Array]) -> Any:
    def hook(module: torch.nn.RNNBase, args: Any, kwargs: Any, result: Any) -> None:
        x = args[0] if args else kwargs["input"]
        hx = args[1] if len(args) > 1 else kwargs.get("hx")
        call = calls[path]
        calls[path] += 1
        # ONNX computes a projected LSTM on other states; packed sequences are padded there.
        if module.proj_size or not isinstance(x, Tensor):
            return
        for layer, ports in enumerate(_layers(module, x, hx)):
            tensors.update({Place(path, call, layer, port): v for port, v in ports.items()})

    return hook


def _layers(module: torch.nn.RNNBase, x: Tensor, hx: Any) -> Iterator[dict[str, Array]]:
    """The ports of each layer as ONNX has them, states `[directions, batch, hidden_size]`."""
    batched = x if x.dim() == 3 else x.unsqueeze(0 if module.batch_first else 1)
    x = batched.transpose(0, 1) if module.batch_first else batched
    starts = _starts(module, hx, x)
    directions = 2 if module.bidirectional else 1
    for layer in range(module.num_layers):
        single = _single(module, layer)
        own = [start[layer * directions : (layer + 1) * directions] for start in starts]
        y, ends = single(x, tuple(own) if len(own) > 1 else own[0])
        ends = ends if isinstance(ends, tuple) else (ends,)
        by_direction = y.reshape(*y.shape[:2], directions, -1).transpose(1, 2)
        tensors = (x, *own, by_direction, *ends)
        names = ("X", *("initial_h", "initial_c")[: len(own)], "Y", *("Y_h", "Y_c")[: len(own)])
        yield {n: np.array(tensor.numpy()) for n, tensor in zip(names, tensors, strict=True)}
        x = y


def _starts(module: torch.nn.RNNBase, hx: Any, x: Tensor) -> list[Tensor]:
    """The states before the first frame, each `[layers * directions, batch, hidden_size]`."""
    count = 2 if isinstance(module, torch.nn.LSTM) else 1
    rows = module.num_layers * (2 if module.bidirectional else 1)
    shape = (rows, x.shape[1], module.hidden_size)
    if hx is None:
        return [x.new_zeros(shape)] * count
    return [start.reshape(shape) for start in (hx if count == 2 else [hx])]


def _single(module: torch.nn.RNNBase, layer: int) -> torch.nn.RNNBase:
    """One layer of the module as a module, time first."""
    directions = 2 if module.bidirectional else 1
    width = module.hidden_size * directions if layer else module.input_size
    kind = next(k for k in (torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM) if isinstance(module, k))
    options = {"bias": module.bias, "bidirectional": module.bidirectional}
    if isinstance(module, torch.nn.RNN):
        options["nonlinearity"] = module.nonlinearity
    single: torch.nn.RNNBase = kind(width, module.hidden_size, **options)
    dtype = next(module.parameters()).dtype
    names = [
        name for pair in module._all_weights[layer * directions :][:directions] for name in pair
    ]
    weights = {name.replace(f"_l{layer}", "_l0"): getattr(module, name) for name in names}
    single.to(dtype).load_state_dict(weights)
    return single

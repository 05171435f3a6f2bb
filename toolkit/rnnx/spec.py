"""Finds the torch model that a SPEC names: `package.module:factory`, `file.py:factory`, `file.pt2`.

A factory is a function or class that returns an `nn.Module`, or a pair of it and its example
arguments. It may be given literal arguments: `net.py:make("small", layers=2)`.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from rnnx.user_code import FORMS, Named, find
from rnnx_exporters.capture import quiet
from rnnx_runtime.errors import SpecError

# torch.export.load would unpickle anything; so it holds to tensors, as torch.load does by default.
_WEIGHTS_ONLY = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
_SAVE_WEIGHTS = "Save the state dict: torch.save(model.state_dict(), path)."


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a SPEC names.

    Attributes:
        model: the network.
        args: its example arguments, where the factory returns them.
    """

    model: torch.nn.Module | torch.export.ExportedProgram
    args: tuple[Any, ...] | None = None


def load_model(spec: str, weights: str | None = None) -> Loaded:
    """Load the model that `spec` names, with the state dict at `weights` where given.

    Raises:
        SpecError: the spec names nothing usable, its factory raises, or the weights do not fit.
    """
    if spec.endswith(".pt2"):
        if weights is not None:
            raise SpecError(f"{spec!r} holds its own weights; leave those in {weights!r} out")
        return Loaded(_load_program(spec))
    loaded = _make(find(spec, "model"))
    if weights is not None:
        assert isinstance(loaded.model, torch.nn.Module)
        load_weights(loaded.model, weights)
    return loaded


def load_weights(model: torch.nn.Module, path: str) -> None:
    """Load a state dict into the model, strictly.

    Raises:
        SpecError: the file is missing, holds more than tensors, or does not fit the model.
    """
    state = _read_weights(path)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        state = state.get("state_dict", state)  # where trainers keep it in their checkpoints
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise SpecError(
            f"the weights in {path!r} do not fit {type(model).__name__}:"
            f" {' '.join(str(error).split())}",
            hint="Build the model with the sizes it was trained with.",
        ) from error


def _make(named: Named) -> Loaded:
    made, spec = named.value, named.spec
    if not isinstance(made, torch.nn.Module):
        made = named.call()
    elif named.args or named.kwargs:
        raise SpecError(f"{spec!r} is a model already, and takes no arguments")
    if isinstance(made, torch.nn.Module):
        return Loaded(made)
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], torch.nn.Module):
        example = made[1]
        return Loaded(made[0], example if isinstance(example, tuple) else (example,))
    raise SpecError(
        f"{spec!r} made {type(made).__name__}, not an nn.Module",
        hint="Return the model, or the pair (model, example_arguments).",
    )


def _load_program(path: str) -> torch.export.ExportedProgram:
    if not Path(path).is_file():
        raise SpecError(f"no file at {path!r}", hint=FORMS["model"])
    try:
        with quiet(), mock.patch.dict(os.environ, _WEIGHTS_ONLY):
            _refuse_compiled(path)
            return torch.export.load(path)
    except SpecError:
        raise
    except Exception as error:  # torch raises many unrelated classes
        raise SpecError(
            f"{path!r} is not a torch.export program: {_told(error)}",
            hint="Save one with torch.export.save(program, path).",
        ) from error


def _refuse_compiled(path: str) -> None:
    with zipfile.ZipFile(path) as archive:
        if any("data/aotinductor/" in name for name in archive.namelist()):
            raise SpecError(
                f"{path!r} holds compiled code, which loading it would run",
                hint="Save the program itself: torch.export.save(program, path).",
            )


def _read_weights(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        raise SpecError(f"no weights at {path!r}", hint="Check the path given to --weights.")
    try:
        with quiet():
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many unrelated classes
        raise SpecError(
            f"{path!r} is not a file of weights, a state_dict that torch.save wrote:"
            f" {_told(error)}",
            hint=f"{_SAVE_WEIGHTS} Whole pickled models are refused, since loading one runs"
            " whatever code it holds.",
        ) from error
    if not isinstance(state, dict):
        raise SpecError(
            f"{path!r} holds a {type(state).__name__}, not a state dict", hint=_SAVE_WEIGHTS
        )
    return state


def _told(error: Exception) -> str:
    """Its class, which alone says what some messages of torch mean, and its first line."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])

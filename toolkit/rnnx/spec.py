"""Finds the torch model that a SPEC names: `package.module:factory`, `file.py:factory`, `file.pt2`.

A factory is a function or class that returns an `nn.Module`, or a pair of it and its example
arguments. It may be given literal arguments: `net.py:make("small", layers=2)`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
import traceback
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from rnnx_exporters.capture import quiet, user_line
from rnnx_runtime.errors import SpecError

# torch.export.load would unpickle anything; so it holds to tensors, as torch.load does by default.
_WEIGHTS_ONLY = {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
_FORMS = "Give package.module:factory, path/file.py:factory, or a torch.export .pt2 file."


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
    where, _, call = _split(spec)
    module = _import(where)
    name, args, kwargs = _read_call(call)
    loaded = _make(_attribute(module, name, where), spec, args, kwargs)
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


def _split(spec: str) -> tuple[str, str, str]:
    match = re.fullmatch(r"(.+?):(?![\\/])(.+)", spec)  # not the colon of a drive letter
    if match is None:
        raise SpecError(f"{spec!r} names no model", hint=_FORMS)
    return match[1], ":", match[2]


def _import(where: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _import_file(Path(where))
        sys.path.insert(0, "")
        return importlib.import_module(where)
    except SpecError:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{where}.".startswith(f"{error.name}."):
            raise SpecError(f"there is no module {where!r}", hint=_FORMS) from error
        raise SpecError(f"{where!r} needs the module {error.name!r}, which is missing") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise SpecError(f"importing {where!r} failed: {_told(error)}") from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SpecError(f"no file at {str(path)!r}", hint=_FORMS)
    sys.path.insert(0, str(path.parent.resolve()))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _read_call(call: str) -> tuple[str, list[Any], dict[str, Any]]:
    """`make("small", layers=2)` as its name and literal arguments."""
    try:
        node = ast.parse(call, mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, [], {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            named = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
            kwargs = {name: value for name, value in named.items() if name is not None}
            if len(kwargs) == len(node.keywords):  # without **
                return node.func.id, [ast.literal_eval(arg) for arg in node.args], kwargs
    except (SyntaxError, TypeError, ValueError):
        pass
    raise SpecError(
        f"{call!r} is neither a name nor a call with literal arguments",
        hint="Write it as factory or factory('small', layers=2), quoted for the shell.",
    )


def _attribute(module: ModuleType, name: str, where: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    names = [key for key, value in vars(module).items() if _is_own_factory(value, module)]
    raise SpecError(
        f"{where!r} has no {name!r}", hint=f"It has: {', '.join(names) or 'no functions at all'}."
    )


def _is_own_factory(value: Any, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _make(factory: Any, spec: str, args: list[Any], kwargs: Mapping[str, Any]) -> Loaded:
    made = factory
    if isinstance(factory, torch.nn.Module):
        if args or kwargs:
            raise SpecError(f"{spec!r} is a model already, and takes no arguments")
    else:
        try:
            made = factory(*args, **kwargs)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise SpecError(f"{spec!r} raised {_told(error)}") from error
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
        raise SpecError(f"no file at {path!r}", hint=_FORMS)
    try:
        with quiet(), mock.patch.dict(os.environ, _WEIGHTS_ONLY):
            _refuse_compiled(path)
            return torch.export.load(path)
    except SpecError:
        raise
    except Exception as error:  # torch raises many unrelated classes
        raise SpecError(
            f"{path!r} is not a torch.export program: {_first(error)}",
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
            f"{path!r} is not a file of weights: {_first(error)}",
            hint="Save the state dict: torch.save(model.state_dict(), path). Whole pickled models"
            " are refused, since loading one runs whatever code it holds.",
        ) from error
    if not isinstance(state, dict):
        raise SpecError(f"{path!r} holds a {type(state).__name__}, not a state dict")
    return state


def _told(error: BaseException) -> str:
    """An error of the user's code: its class, message and line."""
    frames = traceback.extract_tb(error.__traceback__)
    line = user_line([frame for frame in frames if frame.filename != __file__])
    message = str(error)
    if isinstance(error, SyntaxError):
        line, message = f"{error.filename}:{error.lineno}", error.msg
    told = f"{type(error).__name__}: {' '.join(message.split())}"
    return f"{told} (at {line})" if line else told


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

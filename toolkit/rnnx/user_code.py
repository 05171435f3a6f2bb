"""Finds in a person's own code what a SPEC names: `package.module:name`, `path/file.py:name`."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rnnx_exporters.user_line import user_line
from rnnx_runtime.errors import SpecError

FORMS = {
    "model": "Give package.module:factory, path/file.py:factory, or a torch.export .pt2 file.",
    "function": "Give package.module:function or path/file.py:function, without arguments.",
}


class Named(NamedTuple):
    """What a SPEC names.

    Attributes:
        spec: as it was given.
        value: a function, a class or any other object.
        args, kwargs: the literal arguments that the spec gives it.
    """

    spec: str
    value: Any
    args: list[Any]
    kwargs: dict[str, Any]

    def call(self) -> Any:
        """What the function or class returns.

        Raises:
            SpecError: it raises anything.
        """
        try:
            return self.value(*self.args, **self.kwargs)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise SpecError(f"{self.spec!r} raised {told(error)}") from error


def find(spec: str, what: str) -> Named:
    """Import what `spec` names.

    Args:
        spec: `package.module:name` or `path/file.py:name`, with literal arguments or without.
        what: it should be: `"model"` or `"function"`.

    Raises:
        SpecError: the spec names nothing, or its module cannot be imported.
    """
    where, call = _split(spec, what)
    module = _import(where, FORMS[what])
    name, args, kwargs = _read_call(call)
    return Named(spec, _attribute(module, name, where), args, kwargs)


def load_function(spec: str) -> Callable[..., Any]:
    """The function that `spec` names.

    Raises:
        SpecError: it names none.
    """
    named = find(spec, "function")
    if not callable(named.value) or named.args or named.kwargs:
        raise SpecError(
            f"{spec!r} names no function",
            hint=FORMS["function"],
        )
    function: Callable[..., Any] = named.value
    return function


def told(error: BaseException) -> str:
    """An error of the user's code: its class, message and line."""
    frames = traceback.extract_tb(error.__traceback__)
    line = user_line([frame for frame in frames if frame.filename != __file__])
    message = str(error)
    if isinstance(error, SyntaxError):
        line, message = f"{error.filename}:{error.lineno}", error.msg
    said = f"{type(error).__name__}: {' '.join(message.split())}"
    return f"{said} (at {line})" if line else said


def _split(spec: str, what: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+?):(?![\\/])(.+)", spec)  # not the colon of a drive letter
    if match is None:
        raise SpecError(f"{spec!r} names no {what}", hint=FORMS[what])
    return match[1], match[2]


def _import(where: str, forms: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            return _import_file(Path(where), forms)
        sys.path.insert(0, "")
        return importlib.import_module(where)
    except SpecError:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{where}.".startswith(f"{error.name}."):
            raise SpecError(f"there is no module {where!r}", hint=forms) from error
        raise SpecError(f"{where!r} needs the module {error.name!r}, which is missing") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise SpecError(f"importing {where!r} failed: {told(error)}") from error


def _import_file(path: Path, forms: str) -> ModuleType:
    if not path.is_file():
        raise SpecError(f"no file at {str(path)!r}", hint=forms)
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

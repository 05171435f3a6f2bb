"""Captures a torch model with torch.export, and says in the user's terms what it cannot capture."""

from __future__ import annotations

import copy
import io
import logging
import re
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import onnx_ir as ir
import torch
from torch._dynamo.exc import UncapturedHigherOrderOpError, UserError
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from rnnx_exporters.assumptions import UNTOLD, Assumption, assumptions
from rnnx_exporters.layout import TIME, Layout, Sizes, by_name
from rnnx_exporters.native import translations
from rnnx_exporters.projection import invert_projections
from rnnx_exporters.recurrent import Recurrent
from rnnx_exporters.user_line import is_library, user_line
from rnnx_runtime.errors import ExportError, RnnxError

_LEAST = re.compile(r"(\w+) = Dim\('\w+', min=(\d+)\)")
_HALVINGS = (2, 4, 8, 16, 32)
# torch.export, like what is patched and redirected here, is for one thread at a time.
_ALONE = threading.RLock()
_WAY_OUT = (
    "Keep sizes symbolic: no Python loop over time, no int(x.shape[1]), no tensor made for one"
    " length. A loop over time becomes rnnx.scan(step, state, x), over a cell of torch's"
    " rnnx.scan(cell, state, x)."
)
_STEP = (
    "A step computes tensors from its state, its frame and the module's parameters. It changes"
    " nothing in place, calls no recurrent layer, takes from outside no two views of one tensor"
    " (clone them), and returns tensors only."
)


@dataclass
class Frozen:
    """Where the model's code turned a free size into a number.

    Attributes:
        numbers: `file:line: code` where a size became one number.
        guards: the same where the code decided by a size, by the condition over torch's symbols.
    """

    numbers: list[str] = field(default_factory=list)
    guards: dict[str, str] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """The line to show."""
        return [*self.numbers, *self.guards.values(), UNTOLD][0]


@dataclass(frozen=True, slots=True)
class Captured:
    """A captured model: its ONNX graph, still with torch's names, and what it must contain.

    Attributes:
        model: the ONNX graph.
        layers: the number of native recurrent nodes it must have.
        assumptions: what torch assumed of the free sizes.
    """

    model: ir.Model
    layers: int
    assumptions: Sequence[Assumption] = ()


def capture(module: torch.nn.Module, layout: Layout, opset_version: int) -> Captured:
    """The ONNX graph of `module`, recurrent layers native, free axes free.

    Args:
        module: the network; left as it is.
        layout: the example and its free axes.
        opset_version: the ONNX opset.

    Raises:
        ExportError: torch cannot capture the model, or its code freezes a free size.
    """
    with quiet(), _recording() as frozen:
        try:
            program, layers = _traced(module, layout)
        except RnnxError:
            raise
        except Exception as error:  # torch.export raises many unrelated classes
            raise _explain(error, frozen) from error
    return Captured(translate(program, opset_version), layers, _assumed(program, frozen))


def _assumed(program: torch.export.ExportedProgram, frozen: Frozen) -> list[Assumption]:
    lines = frozen.guards
    return [replace(one, line=lines.get(one.guard, frozen.line)) for one in assumptions(program)]


def _traced(module: torch.nn.Module, layout: Layout) -> tuple[torch.export.ExportedProgram, int]:
    """The program and the layers it called.

    Where sizes have a least, or a length must be a multiple of something, torch is told so.
    """
    try:
        return _trace(module, layout, Sizes())
    except UserError as error:
        refused = error
    for sizes in _told(str(refused), layout):
        try:
            return _trace(module, layout, sizes)
        except UserError:
            continue
    raise refused


def _trace(
    module: torch.nn.Module, layout: Layout, sizes: Sizes
) -> tuple[torch.export.ExportedProgram, int]:
    module = copy.deepcopy(module)  # tracing may leave symbolic tensors in its attributes
    invert_projections(module)
    with _unchecked(module), Recurrent(module) as recurrent:
        program = torch.export.export(
            module,
            layout.args,
            dynamic_shapes=by_name(module, layout.dims(sizes)),
            strict=False,
            # A strided convolution's frames are an expression, which no guard of torch's can hold.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
    return program, recurrent.layers


def _told(message: str, layout: Layout) -> Iterator[Sizes]:
    """What sizes may be instead, as torch suggests; then lengths that a network can halve."""
    fixes = message.partition("Suggested fixes:\n")[2].partition("\n\n")[0].splitlines()
    found = [_LEAST.fullmatch(fix.strip()) for fix in fixes]
    if fixes and all(found):
        yield Sizes(least={match[1]: int(match[2]) for match in found if match})
    frames = layout.sizes.get(TIME, 1)
    yield from (Sizes(multiples={TIME: two}) for two in _HALVINGS if frames % two == 0)


def translate(program: torch.export.ExportedProgram, opset_version: int) -> ir.Model:
    """The ONNX graph of an exported program, not yet optimized.

    Raises:
        ExportError: an operator has no ONNX form.
    """
    with quiet():
        try:
            exported = torch.onnx.export(
                program,
                custom_translation_table=translations(),
                dynamo=True,
                optimize=False,
                opset_version=opset_version,
                verbose=False,
            )
        except Exception as error:  # torch.onnx raises many unrelated classes
            if "FunctionalTensor" in str(error):
                raise ExportError(
                    "the step of a scan makes a tensor of its own, from numbers or a list",
                    hint="Make it in __init__ and keep it with register_buffer.",
                ) from error
            raise ExportError(
                f"torch.onnx cannot translate the model: {_root(error)}",
                hint="Replace the operator it names; run again with --debug for all of it.",
            ) from error
    assert exported is not None
    return exported.model


def _explain(error: Exception, frozen: Frozen) -> ExportError:
    message = str(error).strip()
    if "Constraints violated" in message or "specialized it to be a constant" in message:
        first = [line.strip(" -") for line in message.splitlines() if line.startswith("  - ")]
        return ExportError(
            f"the model freezes a free axis at {frozen.line}"
            f" ({first[0].split('. ')[0] if first else message.splitlines()[0]})",
            hint=_WAY_OUT,
        )
    if isinstance(error, UncapturedHigherOrderOpError):
        return ExportError(f"the step of a scan cannot be captured: {_reason(message)}", hint=_STEP)
    return ExportError(
        f"torch.export cannot capture the model: {_root(error)}{_raised_at(error)}",
        hint="Control flow must not depend on tensor values; run with --debug for torch's report.",
    )


def _root(error: BaseException) -> str:
    """The innermost cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"


def _reason(message: str) -> str:
    """What dynamo found in a step, and the user's line, from its report of many paragraphs."""
    told = [line.strip() for line in message.splitlines() if line.strip()]
    reason = told[1] if told[0].endswith("Got graph break/error:") else told[0]
    places = re.findall(r'File "(.+)", line (\d+)', message)
    users = [f" at {file}:{line}" for file, line in places if not is_library(file)]
    return reason.rstrip(":") + "".join(users[-1:])


def _raised_at(error: BaseException) -> str:
    line = user_line(traceback.extract_tb(error.__traceback__))
    return f" at {line}" if line else ""


@contextmanager
def _recording() -> Iterator[Frozen]:
    """Note the user's line whenever torch turns a symbolic size into a number or decides by it."""
    frozen = Frozen()
    set_replacement, log_guard = ShapeEnv._set_replacement, ShapeEnv._log_guard

    def replacing(self: ShapeEnv, symbol: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        if target.is_number:
            frozen.numbers.extend(_here())
        return set_replacement(self, symbol, target, *args, **kwargs)

    def guarding(self: ShapeEnv, prefix: str, condition: Any, *args: Any, **kwargs: Any) -> Any:
        for line in _here():
            frozen.guards.setdefault(str(condition), line)
        return log_guard(self, prefix, condition, *args, **kwargs)

    with (
        mock.patch.object(ShapeEnv, "_set_replacement", replacing),
        mock.patch.object(ShapeEnv, "_log_guard", guarding),
    ):
        yield frozen


def _here() -> list[str]:
    line = user_line(traceback.extract_stack())
    return [line] if line else []


@contextmanager
def _unchecked(module: torch.nn.Module) -> Iterator[None]:
    """Leave out the layers' checks of their arguments, which read `batch_sizes` as numbers."""
    with ExitStack() as stack:
        for layer in module.modules():
            if isinstance(layer, torch.nn.RNNBase):
                stack.enter_context(mock.patch.object(layer, "check_forward_args", _no_check))
        yield


def _no_check(*args: Any) -> None:
    pass


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch prints, logs and warns; what matters to the user is raised.

    Within it tensors made without a dtype are float32, as exported models are.
    """
    with (
        _ALONE,
        _in_float32(),
        _silenced("torch.onnx", "torch.fx", "torch.export", "onnxscript"),
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _in_float32() -> Iterator[None]:
    """Let torch's default dtype be float32, whatever the caller or the model makes it."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

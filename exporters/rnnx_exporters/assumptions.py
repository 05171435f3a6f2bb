"""What torch assumed of the free sizes while it captured a model, and sizes where that is false.

torch.export decides some things by the example's sizes: that a convolution leaves more than one
frame, say, or which branch of an `if` runs. Where that is false the graph may still be right, or
be the frozen half of the user's code; so it is proven there as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch.utils._sympy.printers import PythonPrinter

from rnnx_exporters.tidy import rename

UNTOLD = "a line torch does not tell"


@dataclass(frozen=True, slots=True)
class Assumption:
    """A condition on the free sizes.

    Attributes:
        condition: Python code over torch's symbols, `s27 >= 3` say, or over the axes' names.
        guard: the same in torch's words.
        line: `file:line: code` of the user's that made torch assume it.
    """

    condition: str
    guard: str = ""
    line: str = UNTOLD

    def renamed(self, names: Mapping[str, str]) -> Assumption:
        """The same assumption over the axes' names."""
        return replace(self, condition=rename(self.condition, names))

    def false_sizes(self, sizes: Mapping[str, int]) -> Iterator[dict[str, int]]:
        """The least and the largest size of each axis at which it is false, others as given."""
        code = compile(self.condition, "<assumption>", "eval")
        for axis, size in sizes.items():
            tried = ({**sizes, axis: other} for other in range(1, 2 * size + 1))
            false = [one for one in tried if not _holds(code, one)]
            yield from (false[0], false[-1]) if false else ()


def assumptions(program: torch.export.ExportedProgram) -> list[Assumption]:
    """The conditions under which a program was captured."""
    ranges = program.range_constraints.items()
    found = [Assumption(f"{symbol} >= {int(allowed.lower)}") for symbol, allowed in ranges]
    for node in program.graph.nodes:
        if node.target is torch.ops.aten._assert_scalar.default:
            condition = node.args[0].meta["val"].node.expr
            found.append(Assumption(PythonPrinter().doprint(condition), str(condition)))
    return found


def _holds(code: object, sizes: Mapping[str, int]) -> bool:
    try:
        return bool(eval(code, {}, dict(sizes)))  # type: ignore[arg-type]
    except ZeroDivisionError:
        return False
    except NameError:  # about a size that depends on values, which no input's size decides
        return True

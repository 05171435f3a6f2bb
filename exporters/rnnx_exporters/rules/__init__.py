"""One small function for each operator: what time does there.

A rule takes a node and the facts of its inputs and returns the facts of its outputs (the last one
stands for all that follow), with the edits that give it a memory if it needs one, or raises
`Refused`. To add an operator, add its function to the table of the module where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from rnnx_exporters.rules import (
    elementwise,
    features,
    matrix,
    recurrent,
    running,
    shapes,
    sizes,
    windows,
)
from rnnx_exporters.timeline import Fact, Planned

Rule = Callable[[ir.Node, list[Fact]], Planned | Sequence[Fact]]

RULES: Mapping[str, Rule] = {
    **elementwise.RULES,
    **features.RULES,
    **matrix.RULES,
    **recurrent.RULES,
    **running.RULES,
    **shapes.RULES,
    **sizes.RULES,
    **windows.RULES,
}
DOMAINS: Mapping[str, Mapping[str, Rule]] = {
    "": RULES,
    "ai.onnx": RULES,
    "com.microsoft": recurrent.CONTRIBUTED,
}

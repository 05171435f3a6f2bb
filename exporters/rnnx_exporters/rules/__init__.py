"""One small function for each operator: what time does there.

A rule takes a node and the facts of its inputs and returns the facts of its outputs (the last one
stands for all that follow), or raises `Refused`. To add an operator, add its function to the table
of the module where it belongs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from rnnx_exporters.rules import elementwise, features, matrix, recurrent, shapes
from rnnx_exporters.timeline import Fact

Rule = Callable[[ir.Node, list[Fact]], Sequence[Fact]]

RULES: Mapping[str, Rule] = {
    **elementwise.RULES,
    **features.RULES,
    **matrix.RULES,
    **recurrent.RULES,
    **shapes.RULES,
}

"""Follows time through a graph: for every wire, whether and how it depends on the frames.

This is abstract interpretation: each wire gets a `Fact`, each operator has a rule (in `rules/`)
that derives the facts of its outputs from those of its inputs, or refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from rnnx_runtime.errors import NotStreamableError


@dataclass(frozen=True, slots=True)
class Frames:
    """The wire holds one slice for each frame, along `axis`."""

    axis: int


@dataclass(frozen=True, slots=True)
class Last:
    """The wire holds the value at the last frame so far: in a stream, a running value."""


@dataclass(frozen=True, slots=True)
class Length:
    """The wire is a vector of sizes; `flags` tells which of them count frames."""

    flags: tuple[bool, ...]


# None: the wire does not depend on the frames.
Fact = Frames | Last | Length | None


class Refused(Exception):  # noqa: N818 - a rule's verdict, never seen by users
    """A rule's refusal: why the operator cannot run frame after frame, and what would help."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def follow(model: ir.Model, inputs: Mapping[str, Fact]) -> dict[ir.Value, Fact]:
    """The fact of every wire of the graph.

    Args:
        model: the graph, its shapes inferred.
        inputs: the facts of the graph's inputs by name.

    Raises:
        NotStreamableError: an operator cannot run frame after frame; names node, module and reason.
    """
    facts: dict[ir.Value, Fact] = {
        value: inputs.get(str(value.name)) for value in model.graph.inputs
    }
    for node in model.graph:
        known = [None if value is None else facts.get(value) for value in node.inputs]
        facts |= zip(node.outputs, _derive(node, known), strict=True)
    return facts


def refuse(node: ir.Node, reason: str, hint: str | None) -> NotStreamableError:
    """The error that names a node, the module it came from, and why it cannot stream."""
    module = node.metadata_props.get("rnnx.module")
    origin = f" (from module {module!r})" if module else ""
    return NotStreamableError(
        f"{node.op_type} node {node.name!r}{origin} cannot stream: {reason}",
        hint=hint or "Export without streaming, or change this part of the network.",
    )


def _derive(node: ir.Node, known: list[Fact]) -> list[Fact]:
    from rnnx_exporters.rules import RULES

    if all(fact is None for fact in known) and not _has_subgraph(node):
        return [None] * len(node.outputs)
    rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        raise refuse(node, "rnnx has no streaming rule for this operator", None)
    try:
        facts = list(rule(node, known))
    except Refused as error:
        raise refuse(node, str(error), error.hint) from error
    return (facts + facts[-1:] * len(node.outputs))[: len(node.outputs)]


def _has_subgraph(node: ir.Node) -> bool:
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in graphs for attribute in node.attributes.values())

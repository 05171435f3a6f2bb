"""Follows time through a graph: for every wire, whether and how it depends on the frames.

This is abstract interpretation: each wire gets a `Fact`, each operator has a rule (in `rules/`)
that derives the facts of its outputs from those of its inputs, or refuses. Where an operator must
remember something from call to call, its rule says so by an `Edit`. Nothing is changed here: the
facts and edits of a graph are a plan, which `streaming` carries out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import reduce
from typing import TYPE_CHECKING, Protocol

import onnx_ir as ir

from rnnx_exporters.clock import Clock
from rnnx_runtime.errors import NotStreamableError

if TYPE_CHECKING:
    from rnnx_exporters.memory import Memory
    from rnnx_exporters.rules import Rule


@dataclass(frozen=True, slots=True)
class Frames:
    """The wire holds one slice for each frame, along `axis`.

    Attributes:
        axis: the time axis.
        clock: when its frames come.
        rows: if the axis counts time and batch in one: the wire before they were merged.
    """

    axis: int
    clock: Clock = field(default_factory=Clock)
    rows: Rows | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Rows:
    """Two axes, batch and time, were merged into one.

    Attributes:
        node: what merged them, the first two axes of its first input.
        time: which of them is time.
    """

    node: ir.Node
    time: int


@dataclass(frozen=True, slots=True)
class Last:
    """The wire holds the value at the last frame so far: in a stream, a running value."""


@dataclass(frozen=True, slots=True)
class Length:
    """The wire is a vector of sizes, some of which depend on the number of frames.

    Attributes:
        flags: which of them do.
        clock: of the wire whose frames they count; None where they are computed from that.
        plus: what was added to the count.
    """

    flags: tuple[bool, ...]
    clock: Clock | None = None
    plus: int = 0


# None: the wire does not depend on the frames.
Fact = Frames | Last | Length | None


class Edit(Protocol):
    """What an operator must remember from call to call, and how its node changes for it."""

    @property
    def node(self) -> ir.Node:
        """The node it is about."""

    def apply(self, memory: Memory) -> None:
        """Change the graph."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What a rule returns where facts alone are not enough."""

    facts: Sequence[Fact]
    edits: Sequence[Edit]


@dataclass(frozen=True, slots=True)
class Align:
    """Two wires meet: the earlier one, input `place` of the node, waits for the later."""

    node: ir.Node
    place: int
    frames: Frames
    meeting: Clock

    def apply(self, memory: Memory) -> None:
        """Hold back the frames that are ahead."""
        ahead = memory.count(self.frames.clock) - memory.count(self.meeting)
        value = self.node.inputs[self.place]
        assert value is not None
        if ahead:
            held = memory.remember(self.node, value, self.frames, start=0, keep=ahead)
            waiting = memory.cut(self.node, held, self.frames.axis, end=-ahead)
            self.node.replace_input_with(self.place, memory.alike(waiting, value))


@dataclass(slots=True)
class Plan:
    """The facts of every wire of a graph, and the edits that make it a streaming one."""

    facts: dict[ir.Value, Fact]
    edits: list[Edit] = field(default_factory=list)

    def clocks(self) -> set[Clock]:
        """The clocks of all wires that hold frames, those that wait among them."""
        waiting = {edit.meeting for edit in self.edits if isinstance(edit, Align)}
        return waiting | {f.clock for f in self.facts.values() if isinstance(f, Frames)}


class Refused(Exception):  # noqa: N818 - a rule's verdict, never seen by users
    """A rule's refusal: why the operator cannot run frame after frame, and what would help."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def follow(model: ir.Model, inputs: Mapping[str, Fact], *, chunk: int | None = None) -> Plan:
    """The facts of every wire of the graph, and what it must remember.

    Args:
        model: the graph, its shapes inferred.
        inputs: the facts of the graph's inputs by name.
        chunk: how many input frames every call takes, if that is fixed. The first calls are then
            filled up with frames before the sequence, which must not reach a recurrent state: where
            one is, frames are delayed until a chunk is of the sequence or not as a whole.

    Raises:
        NotStreamableError: an operator cannot run frame after frame; names node, module and reason.
    """
    plan = Plan({value: inputs.get(str(value.name)) for value in model.graph.inputs})
    for node in model.graph:
        known = [None if value is None else plan.facts.get(value) for value in node.inputs]
        try:
            _refuse_captured(node, plan.facts)
            planned = _derive(node, known, chunk)
        except Refused as error:
            raise refuse(node, str(error), error.hint) from error
        facts = list(planned.facts)
        facts = (facts + facts[-1:] * len(node.outputs))[: len(node.outputs)]
        plan.facts |= zip(node.outputs, facts, strict=True)
        plan.edits += planned.edits
    return plan


def refuse(node: ir.Node, reason: str, hint: str | None) -> NotStreamableError:
    """The error that names a node, the module it came from, and why it cannot stream."""
    module = node.metadata_props.get("rnnx.module")
    origin = f" (from module {module!r})" if module else ""
    return NotStreamableError(
        f"{node.op_type} node {node.name!r}{origin} cannot stream: {reason}",
        hint=hint or "Export without streaming, or change this part of the network.",
    )


def _refuse_captured(node: ir.Node, facts: Mapping[ir.Value, Fact]) -> None:
    """A subgraph may read wires from around it, but none that depends on the frames."""
    graphs = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    inside = [value for graph in graphs for inner in graph.all_nodes() for value in inner.inputs]
    captured = next((v for v in inside if v is not None and facts.get(v) is not None), None)
    if captured is not None:
        raise Refused(f"its body reads {captured.name!r} from outside, which depends on the frames")


def _derive(node: ir.Node, known: list[Fact], chunk: int | None) -> Planned:
    from rnnx_exporters.rules import DOMAINS

    if all(fact is None for fact in known):
        return Planned([None] * len(node.outputs), ())
    rule = DOMAINS.get(node.domain, {}).get(node.op_type)
    if rule is None:
        raise Refused("rnnx has no streaming rule for this operator")
    result = _ruled(rule, node, known, chunk, Fraction(0))
    ahead = max((_ahead(fact, chunk) for fact in result.facts if chunk), default=Fraction(0))
    return _ruled(rule, node, known, chunk, ahead) if ahead else result


def _ruled(
    rule: Rule, node: ir.Node, known: list[Fact], chunk: int | None, later: Fraction
) -> Planned:
    """What the rule says of wires that have waited for each other."""
    known, waiting = _aligned(node, known, chunk, later)
    result = rule(node, known)
    if isinstance(result, Planned):
        return replace(result, edits=(*waiting, *result.edits))
    return Planned(result, waiting)


def _ahead(fact: Fact, chunk: int) -> Fraction:
    """By how many input frames a wire is ahead, as one that is padded before its first frame is.

    A call that takes a fixed number of frames gives a fixed number, too: there is no room for more.
    """
    if not isinstance(fact, Frames):
        return Fraction(0)
    return max(Fraction(0), -fact.clock.lag(chunk << _PAST) * fact.clock.stride)


def _aligned(
    node: ir.Node, known: list[Fact], chunk: int | None, later: Fraction
) -> tuple[list[Fact], list[Edit]]:
    """The facts as they are once every wire has waited for the latest, and so much longer."""
    framed = [fact for fact in known if isinstance(fact, Frames)]
    if len({fact.clock.stride for fact in framed}) > 1:
        rates = ", ".join(str(fact.clock.stride) for fact in framed)
        raise Refused(f"its inputs run at different rates: every {rates} input frames")
    if not framed:
        return known, []
    meeting = reduce(Clock.joined, dict.fromkeys(fact.clock for fact in framed))
    if chunk is not None and node.op_type in _STATEFUL:
        meeting = meeting.delayed(int(-meeting.lag(chunk << _PAST) % (chunk / meeting.stride)))
    meeting = meeting.delayed(math.ceil(later / meeting.stride))
    pairs = list(enumerate(known))
    late = [(i, f) for i, f in pairs if isinstance(f, Frames) and f.clock.count != meeting.count]
    if any(fact.rows for _, fact in late):
        raise Refused("wires whose time is merged with the batch must be delayed to meet here")
    met: list[Fact] = [replace(f, clock=meeting) if isinstance(f, Frames) else f for f in known]
    return met, [Align(node, place, fact, meeting) for place, fact in late]


_STATEFUL = frozenset({"DynamicQuantizeLSTM", "GRU", "LSTM", "RNN", "Scan"})
# With this many chunks before the sequence, every cache is full.
_PAST = 24

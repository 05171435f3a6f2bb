"""The recurrent operators: their state is the memory that a stream carries."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from rnnx_exporters.edits import Readout
from rnnx_exporters.lifting import FIRST_STATE, Lift
from rnnx_exporters.rules.reading import FORWARD
from rnnx_exporters.timeline import Fact, Frames, Last, Planned, Refused

SEQUENCE_LENS = 4


def step_through(node: ir.Node, facts: list[Fact]) -> Planned:
    """RNN, GRU, LSTM: `Y` has a frame for each input frame, `Y_h` and `Y_c` the last state."""
    if isinstance(facts[0], Frames) and facts[0].axis == 1 and _has_fixed_length(node.inputs[0]):
        return _inside_frames(node, facts)
    direction = node.attributes.get("direction")
    if direction is not None and direction.as_string() != "forward":
        raise Refused(f"it is {direction.as_string()}: it reads the sequence from its end", FORWARD)
    if len(node.inputs) > SEQUENCE_LENS and node.inputs[SEQUENCE_LENS] is not None:
        raise Refused("it takes the lengths of its sequences, which a stream does not know")
    frames = facts[0]
    if not isinstance(frames, Frames) or frames.axis != 0 or frames.rows is not None:
        raise Refused("time is not the first axis of its input")
    if any(fact is not None for fact in facts[FIRST_STATE : FIRST_STATE + 2]):
        raise Refused("it starts from a state that is known only when another sequence has ended")
    behind = replace(frames, clock=frames.clock.remembering())
    readouts = [Readout(node, behind, out, wire=node.outputs[0]) for out in node.outputs[1:]]
    return Planned([behind, Last()], [*readouts, Lift(node, frames)])


def _has_fixed_length(value: ir.Value | None) -> bool:
    """Whether it runs over features: over a free axis it would run over the batch by mistake."""
    return value is not None and value.shape is not None and isinstance(value.shape[0], int)


def _inside_frames(node: ir.Node, facts: list[Fact]) -> Planned:
    """It runs over features: each frame, of which there may be `batch * time`, for itself."""
    frames = facts[0]
    if not isinstance(frames, Frames) or any(fact is not None for fact in facts[1:]):
        raise Refused("a parameter of it depends on the frames")
    if any(node.inputs[FIRST_STATE:]):
        raise Refused(
            "it runs inside every frame from a state that is not zero", "Start it from zeros."
        )
    return Planned([replace(frames, axis=2), frames], ())


RULES = dict.fromkeys(("GRU", "LSTM", "RNN"), step_through)
CONTRIBUTED = {"DynamicQuantizeLSTM": step_through}

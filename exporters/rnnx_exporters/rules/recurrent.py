"""The recurrent operators: their state is the memory that a stream carries."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from rnnx_exporters.timeline import Fact, Frames, Last, Refused

SEQUENCE_LENS, _FIRST_STATE = 4, 5


def step_through(node: ir.Node, facts: list[Fact]) -> Sequence[Fact]:
    """RNN, GRU, LSTM: `Y` has a frame for each input frame, `Y_h` and `Y_c` the last state."""
    direction = node.attributes.get("direction")
    if direction is not None and direction.as_string() != "forward":
        raise Refused(
            f"it is {direction.as_string()}: it reads the sequence from its end",
            "Retrain with a forward layer; where the future helps, delay the targets by a few"
            " frames so that the layer sees a limited look-ahead.",
        )
    if len(node.inputs) > SEQUENCE_LENS and node.inputs[SEQUENCE_LENS] is not None:
        raise Refused("it takes the lengths of its sequences, which a stream does not know")
    if facts[0] != Frames(0):
        raise Refused("time is not the first axis of its input")
    if any(fact is not None for fact in facts[_FIRST_STATE:]):
        raise Refused("it starts from a state that is known only when another sequence has ended")
    return [Frames(0), Last()]


RULES = dict.fromkeys(("GRU", "LSTM", "RNN"), step_through)

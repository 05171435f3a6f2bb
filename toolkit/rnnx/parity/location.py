"""Where an artifact leaves its torch model: block after block, as data and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rnnx.table import render


@dataclass(frozen=True, slots=True)
class Block:
    """A place in the artifact's graph of which the torch model tells the values.

    Attributes:
        block: its name: a module (`front.1`), a recurrent layer (`rnn.l0`), what leads into one
            (`into rnn.l0`), an output or a state.
        module: the torch module, "" where it is none.
        layer: the layer inside that module, where it is recurrent.
        local: the largest |artifact - torch| where all before it is given as torch has it.
        accumulated: the same in the whole run.
        first_step: the first frame out of tolerance where all before it is as torch has it.
        passed: whether it is within tolerance then.
        others: modules that compute it besides, of whose own tensors torch tells nothing: packed
            sequences, a convolution that became one with the norm behind it.
        reason: why the two are not comparable, or None.
    """

    block: str
    module: str
    layer: int | None
    local: float
    accumulated: float
    first_step: int | None
    passed: bool
    others: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Location:
    """The blocks of an artifact, in the order in which they are computed.

    Attributes:
        blocks: every one of which torch tells the values.
        run: the run that was looked at: its batch, its frames, and where there were two, its calls.
    """

    blocks: tuple[Block, ...]
    run: Mapping[str, int]

    @property
    def first(self) -> Block | None:
        """The first block out of tolerance, or None."""
        return next((block for block in self.blocks if not block.passed), None)

    @property
    def sentence(self) -> str:
        """What was found, for a person."""
        found = self.first
        if found is None:
            return "no block is out of tolerance where all before it is as torch has it"
        layer = "" if found.layer is None else f", layer {found.layer}"
        module = f" (module {found.module!r}{layer})" if found.module else ""
        step = "" if found.first_step is None else f", at time step {found.first_step}"
        far = found.reason or f"off by {found.local:.1e}"
        beside = f"; {', '.join(found.others)} cannot be told apart from it" * bool(found.others)
        return f"{found.block}{module} is the first block out of tolerance{step}: {far}{beside}"

    def to_record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "first": None if self.first is None else self.first.block,
            "sentence": self.sentence,
            "run": dict(self.run),
            "blocks": [asdict(block) for block in self.blocks],
        }

    def to_text(self) -> str:
        """A table of the blocks, and the sentence."""
        header = ("block", "module", "local error", "accumulated", "first step out", "verdict")
        return f"{render(header, [_row(block) for block in self.blocks])}\n\n{self.sentence}"


def _row(block: Block) -> tuple[str, ...]:
    return (
        block.block,
        ", ".join((*block.others, block.module)) if block.others else block.module,
        f"{block.local:.1e}",
        f"{block.accumulated:.1e}",
        "" if block.first_step is None else str(block.first_step),
        "ok" if block.passed else "FAILED",
    )

"""The gate: what is near enough, for a float artifact and for a quantized one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rnnx_exporters.compare import ATOL, RTOL
from rnnx_runtime import Contract
from rnnx_runtime.errors import InputError

# A quantized network is another network: it is held to how far it is from the first, in dB.
QUANTIZED_SNR_DB = 30.0


@dataclass(frozen=True, slots=True)
class Gate:
    """What an output must keep to.

    Attributes:
        rtol, atol: |artifact - reference| <= atol + rtol * |reference|, element by element.
        atols: atol of outputs that have one of their own, by name.
        snr_db: where set, the least ratio of the reference to the difference, in dB; the tolerance
            is told then, not asked for.
        agreement: where set, the least share of places at which the largest value along the last
            axis is the same one.
    """

    rtol: float = RTOL
    atol: float = ATOL
    atols: Mapping[str, float] = field(default_factory=dict)
    snr_db: float | None = None
    agreement: float | None = None

    def atol_of(self, output: str) -> float:
        """The absolute tolerance of one output."""
        return self.atols.get(output, self.atol)


def gate_for(
    contract: Contract,
    rtol: float,
    atol: float | Mapping[str, float],
    snr_db: float | None,
    agreement: float | None,
) -> Gate:
    """The gate for an artifact: quality where it is quantized or quality is asked for.

    Raises:
        InputError: a tolerance is no number of 0 or more, or names no output or state.
    """
    atols = dict(atol) if isinstance(atol, Mapping) else {"": atol}
    plain = atols.pop("", ATOL)
    known = [port.name for port in contract.outputs] + [state.name for state in contract.states]
    unknown = [name for name in atols if name not in known]
    if unknown:
        raise InputError(
            f"there is no output {unknown[0]!r} to have a tolerance of its own",
            hint=f"The outputs and states are {', '.join(known)}.",
        )
    if not all(0 <= tolerance < math.inf for tolerance in (rtol, plain, *atols.values())):
        raise InputError(
            f"a tolerance must be a number of 0 or more; rtol is {rtol}, atol is {atol}",
            hint=f"Leave them out for rtol {RTOL:g} and atol {ATOL:g}.",
        )
    if snr_db is None and contract.quantization is not None:
        snr_db = QUANTIZED_SNR_DB
    return Gate(rtol, plain, atols, snr_db, agreement)

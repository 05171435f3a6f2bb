"""Reports made by hand, for tests of what is made of them."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from rnnx.parity import Finding, Report
from rnnx.parity.location import Block, Location

VERSIONS = {"python": "3.12.1", "torch": "2.13.0"}
MACHINE = {"cpu": "A CPU", "features": ["avx2", "fma"], "torch_threads": 1}


def finding(probe: str = "sequence", output: str = "y", **facts: Any) -> Finding:
    """A finding that passed, where the facts do not say otherwise."""
    plain = {"run": {"batch": 2, "frames": 16}, "passed": True, "max_abs": 1e-8}
    plain |= {"required_atol": 0.0, "rtol": 1e-4, "atol": 1e-5}
    return Finding(**{"probe": probe, "output": output, **plain, **facts})


def failure(probe: str = "sequence", output: str = "y", **facts: Any) -> Finding:
    """A finding at time step 7."""
    off = {"passed": False, "max_abs": 0.5, "required_atol": 0.4, "time_step": 7}
    return finding(probe, output, **{**off, "index": (1, 7, 2), **facts})


def location() -> Location:
    """The layer `rnn.l0` is wrong from frame 3 on."""
    right = Block("front", "front", None, 1e-8, 1e-8, None, True)
    wrong = Block("rnn.l0", "rnn", 0, math.inf, math.inf, 3, False, "nan instead of 0")
    return Location((right, wrong), {"batch": 2, "frames": 16})


def report(*findings: Finding, artifact: str = "m.onnx", **facts: Any) -> Report:
    return Report(artifact, findings, 0, VERSIONS, machine=MACHINE, **facts)


_names = st.text(min_size=1, max_size=8)
_sizes = st.floats(0, allow_nan=False)
_known = st.none() | st.floats(-200, 200)

findings = st.builds(
    Finding,
    probe=st.sampled_from(["sequence", "chunked", "a probe"]),
    output=_names,
    run=st.dictionaries(_names, st.integers(0, 9), max_size=3),
    passed=st.booleans(),
    max_abs=_sizes | st.just(math.inf),
    required_atol=_sizes | st.just(math.inf),
    rtol=_sizes,
    atol=_sizes,
    index=st.none() | st.tuples(st.integers(0, 9), st.integers(0, 9)),
    time_step=st.none() | st.integers(0, 9),
    reason=st.none() | st.text(),
    noise_floor=_known,
    floor_ratio=_known,
    snr_db=_known,
    agreement=_known,
    min_snr_db=_known,
    min_agreement=_known,
)
blocks = st.builds(
    Block,
    block=_names,
    module=st.text(),
    layer=st.none() | st.integers(0, 3),
    local=_sizes | st.just(math.inf),
    accumulated=_sizes | st.just(math.inf),
    first_step=st.none() | st.integers(0, 9),
    passed=st.booleans(),
    reason=st.none() | st.text(),
)
reports = st.builds(
    Report,
    artifact=st.text(min_size=1),
    findings=st.lists(findings, max_size=6).map(tuple),
    seed=st.integers(0),
    versions=st.just(VERSIONS),
    notes=st.lists(st.text(), max_size=2).map(tuple),
    skipped=st.dictionaries(st.sampled_from(["ragged", "loud"]), st.text(), max_size=2),
    machine=st.just(MACHINE),
    location=st.none() | st.builds(Location, st.lists(blocks, max_size=3).map(tuple), st.just({})),
)

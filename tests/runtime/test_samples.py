from __future__ import annotations

import numpy as np

from rnnx_runtime import Contract, Port
from rnnx_runtime.model import fit_inputs
from rnnx_runtime.samples import random_inputs


def test_random_inputs_fit_the_contract_and_use_every_id() -> None:
    contract = Contract(
        inputs=(
            Port("x", "float32", ("batch", "time", 5), 0, 1),
            Port("ids", "int64", ("time", "batch"), 1, 0, num_embeddings=7),
            Port("mask", "bool", ("batch", 4), 0),
        ),
        outputs=(),
    )
    inputs = random_inputs(contract, np.random.default_rng(0), batch=3, frames=100)
    assert fit_inputs(contract, inputs).keys() == {"x", "ids", "mask"}
    assert inputs["x"].shape == (3, 100, 5)
    assert set(inputs["ids"].ravel()) == set(range(7))
    assert set(inputs["mask"].ravel()) == {False, True}
    assert abs(inputs["x"].mean()) < 0.1

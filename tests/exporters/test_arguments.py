"""The nesting of a model's arguments, through the contract's JSON and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rnnx
from rnnx_exporters.arguments import rebuild, record

LEAVES = st.sampled_from([torch.ones(1), None, True, 3, 0.5, "same"])
ARGUMENTS = st.lists(
    st.recursive(
        LEAVES,
        lambda part: (
            st.lists(part, max_size=3).map(tuple)
            | st.dictionaries(st.sampled_from("abc"), part, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
).map(tuple)


@given(args=ARGUMENTS)
def test_arguments_come_back_from_json_in_their_nesting(args: tuple[Any, ...]) -> None:
    count = len(tensors(args))
    ports = [rnnx.Port(f"x{place}", "float32", ("batch", place)) for place in range(count)]
    values: list[str] = []

    def value_of(name: str, dtype: str, dims: tuple[int | str, ...]) -> torch.Tensor:
        assert (dtype, dims) == ("float32", ("batch", int(name[1:])))
        values.append(name)
        return torch.ones(1)

    rebuilt = rebuild(json.loads(json.dumps(record(args, ports))), value_of)
    assert values == [port.name for port in ports]
    assert repr(rebuilt) == repr(args)


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, dict):
        return tensors(tuple(value.values()))
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in tensors(part)]
    return [value] if isinstance(value, torch.Tensor) else []


@pytest.mark.parametrize("recorded", [[{}], [{"input": "x"}], 3, [{"dict": 3}]])
def test_a_damaged_record_is_an_input_error(recorded: Any) -> None:
    with pytest.raises(rnnx.InputError, match="damaged") as caught:
        rebuild(recorded, lambda *_: None)
    assert caught.value.hint

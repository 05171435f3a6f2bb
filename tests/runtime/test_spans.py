"""Names and times of what a decoder found, from the contract."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from rnnx import Contract, InputError, Port, to_labels, to_seconds


def _contract(
    labels: tuple[str, ...] | None = None, sample_rate: float | None = None, stride: int = 1
) -> Contract:
    x = Port("x", "float32", ("batch", "time"), 0, 1)
    y = Port("y", "float32", ("batch", "time", 3), 0, 1, stride=Fraction(stride))
    return Contract((x,), (y,), labels=labels, sample_rate=sample_rate)


def test_ids_get_their_labels() -> None:
    contract = _contract(("_", "a", "b"))
    assert to_labels(np.array([2, 1, 2]), contract) == ["b", "a", "b"]
    assert to_labels([], contract) == []


@pytest.mark.parametrize("unnamed", [3, -1])
def test_an_id_without_a_label_is_refused(unnamed: int) -> None:
    with pytest.raises(InputError, match=f"there is no label for id {unnamed}: .* has 3"):
        to_labels([0, unnamed], _contract(("_", "a", "b")))


def test_seconds_count_the_frames_of_the_output() -> None:
    assert to_seconds(50, _contract(sample_rate=100)) == 0.5
    assert to_seconds(50, _contract(sample_rate=16000, stride=160)) == 0.5


def test_what_the_contract_does_not_tell_is_refused() -> None:
    with pytest.raises(InputError, match="no labels") as caught:
        to_labels([0], _contract())
    assert "attribute `labels`" in str(caught.value.hint)
    with pytest.raises(InputError, match="sample rate is not known") as caught:
        to_seconds(0, _contract())
    assert "attribute `sample_rate`" in str(caught.value.hint)

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx_runtime.count import Count

steps = st.tuples(st.integers(1, 6), st.integers(-20, 20), st.integers(1, 6))
chains = st.lists(steps, max_size=6)
frames = st.integers(0, 500)


def counted(chain: list[tuple[int, int, int]]) -> Count:
    count = Count()
    for multiplier, addend, divisor in chain:
        count = count.then(multiplier=multiplier, addend=addend, divisor=divisor)
    return count


def step_by_step(chain: list[tuple[int, int, int]], frames: int) -> int:
    for multiplier, addend, divisor in chain:
        frames = (frames * multiplier + addend) // divisor
    return frames


@given(chains, frames)
def test_merged_steps_count_as_each_step_would(chain: Any, frames: int) -> None:
    assert counted(chain)(frames) == max(0, step_by_step(chain, frames))


def test_steps_that_are_one_step_are_merged() -> None:
    assert Count().then().chains == ((),)
    assert Count().then(addend=-2, divisor=2).then(addend=-1, divisor=3).chains == (((1, -4, 6),),)
    assert Count().then(multiplier=4).then(divisor=2).chains == (((2, 0, 1),),)
    halved_twice = Count().then(divisor=2).then(multiplier=2)
    assert halved_twice.chains == (((1, 0, 2), (2, 0, 1)),)  # 3 frames make 2, not 3


@given(chains, chains, chains, frames)
def test_the_lesser_of_both_goes_on_through_more_steps(
    one: Any, other: Any, more: Any, frames: int
) -> None:
    both = counted(one).least(counted(other))
    assert both(frames) == min(counted(one)(frames), counted(other)(frames))
    for multiplier, addend, divisor in more:
        both = both.then(multiplier=multiplier, addend=addend, divisor=divisor)
    expected = min(step_by_step(one + more, frames), step_by_step(other + more, frames))
    assert both(frames) == max(0, expected)


@given(chains, chains)
def test_a_record_is_read_as_it_was(one: Any, other: Any) -> None:
    count = counted(one).least(counted(other))
    assert Count.from_record([[list(step) for step in chain] for chain in count.chains]) == count


@given(chains, st.integers(1, 60), st.integers(0, 99))
def test_growth_is_what_every_so_many_frames_add(chain: Any, more: int, start: int) -> None:
    count = Count((tuple(chain),))
    try:
        growth = count.growth(more)
    except ValueError:
        return
    walk = [step_by_step(chain, start + more * times) for times in range(4)]
    assert [after - before for before, after in pairwise(walk)] == [growth] * 3


def test_growth_that_is_not_even_is_refused() -> None:
    assert Count().then(addend=-3, divisor=2).growth(4) == 2
    with pytest.raises(ValueError, match="does not divide"):
        Count().then(divisor=2).growth(3)
    with pytest.raises(ValueError, match=r"grows by \[4, 8\]"):
        Count().least(Count().then(multiplier=2)).growth(4)


@pytest.mark.parametrize(
    "record",
    [
        [],
        [[[1, 0]]],
        [[[1, 0, 0]]],
        [[[0, 0, 1]]],
        [[[-1, 0, 1]]],
        [[[1, 0, -1]]],
        [[[1, 0.5, 1]]],
        [[[1, True, 1]]],
        [[["1", 0, 1]]],
        [[[1, 1 << 41, 1]]],
        [[[1, -(1 << 41), 1]]],
        [[[1 << 41, 0, 1]]],
        [[]] * 257,
        [[[1, 0, 2]] * 257],
    ],
)
def test_a_bad_record_is_refused(record: Any) -> None:
    with pytest.raises(ValueError, match=r"chain|count|grow|unpack"):
        Count.from_record(record)

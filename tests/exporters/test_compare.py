"""The comparison that every proof rests on, against its definition written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from exportable import Array
from rnnx_exporters.compare import compare

FLOATS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])
TOLERANCES = st.sampled_from([0.0, 1e-6, 1e-4, 0.01, 1.0])


@st.composite
def pairs(draw: st.DrawFn, elements: st.SearchStrategy[float] = FLOATS) -> tuple[Array, Array]:
    """Two float32 arrays of one shape, often equal or near."""
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    array = arrays.arrays(np.float32, shape, elements=elements)
    reference, other = draw(array), draw(array)
    nearness = draw(arrays.arrays(np.int8, shape, elements=st.integers(0, 2)))
    near = reference * np.float32(1 + draw(TOLERANCES))
    return np.choose(nearness, [reference, near, other]).astype(np.float32), reference


def allowance(reference: float, rtol: float, atol: float) -> float:
    return atol + rtol * abs(reference)


def fits(actual: float, reference: float, rtol: float, atol: float) -> bool:
    if math.isnan(actual) or math.isnan(reference):
        return math.isnan(actual) and math.isnan(reference)
    if math.isinf(actual) or math.isinf(reference):
        return actual == reference
    return abs(actual - reference) <= allowance(reference, rtol, atol)


def on_the_edge(actual: float, reference: float, rtol: float, atol: float) -> bool:
    """Whether rounding decides: the two ways of writing the condition may differ there."""
    distance, limit = abs(actual - reference), allowance(reference, rtol, atol)
    return distance != 0 and math.isclose(distance, limit, rel_tol=1e-9)


@given(pair=pairs(), rtol=TOLERANCES, atol=TOLERANCES)
def test_it_passes_where_every_element_fits(
    pair: tuple[Array, Array], rtol: float, atol: float
) -> None:
    elements = [(float(a), float(r)) for a, r in zip(*(x.ravel() for x in pair), strict=True)]
    assume(not any(on_the_edge(a, r, rtol, atol) for a, r in elements))
    expected = all(fits(a, r, rtol, atol) for a, r in elements)
    assert compare(*pair, rtol=rtol, atol=atol).passed == expected


@given(pair=pairs(st.floats(-1e6, 1e6, width=32)), rtol=TOLERANCES)
def test_required_atol_is_the_threshold(pair: tuple[Array, Array], rtol: float) -> None:
    required = compare(*pair, rtol=rtol, atol=0).required_atol
    assert compare(*pair, rtol=rtol, atol=required).passed
    if required:
        below = math.nextafter(required, 0)
        assert not compare(*pair, rtol=rtol, atol=below).passed


@given(pair=pairs(st.floats(-1e6, 1e6, width=32)), rtol=TOLERANCES)
def test_it_names_the_distance_and_the_worst_element(
    pair: tuple[Array, Array], rtol: float
) -> None:
    actual, reference = (array.astype(np.float64) for array in pair)
    found = compare(*pair, rtol=rtol)
    distance = np.abs(actual - reference)
    assert found.max_abs == distance.max(initial=0)
    assert (found.index is None) == (not distance.any())
    if found.required_atol:
        assert found.index is not None
        needed = distance[found.index] - rtol * abs(reference[found.index])
        assert needed == found.required_atol


@pytest.mark.parametrize(
    ("actual", "reference", "reason"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "shape [2, 3] instead of [3, 2]"),
        (np.zeros((1, 2)), np.zeros(2), "shape [1, 2] instead of [2]"),
        (np.zeros((0, 3)), np.zeros((3, 0)), "shape [0, 3] instead of [3, 0]"),
        (np.zeros(2, "f4"), np.zeros(2, "f8"), "dtype float32 instead of float64"),
        (np.zeros(2, bool), np.zeros(2, "i1"), "dtype bool instead of int8"),
    ],
)
def test_other_shapes_and_dtypes_never_pass(actual: Any, reference: Any, reason: str) -> None:
    found = compare(actual, reference, rtol=1e9, atol=1e9)
    assert (found.passed, found.reason, found.max_abs) == (False, reason, math.inf)


@pytest.mark.parametrize(
    ("actual", "reference"),
    [
        (math.nan, 0.0),
        (0.0, math.nan),
        (math.inf, 1e30),
        (1e30, math.inf),
        (math.inf, -math.inf),
        (math.inf, math.nan),
    ],
)
def test_nan_and_infinity_must_stand_at_the_same_places(actual: float, reference: float) -> None:
    ours, theirs = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    ours[1, 2], theirs[1, 2] = actual, reference
    found = compare(ours, theirs, rtol=1e9, atol=1e9)
    assert not found.passed
    assert found.index == (1, 2)
    assert found.reason == f"{np.float64(ours[1, 2])} instead of {np.float64(theirs[1, 2])}"


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int8", "uint8", "bool"])
def test_every_dtype_of_a_port_is_compared(dtype: str) -> None:
    ours = theirs = np.array([0, 1, 1, 0]).astype(dtype)
    assert compare(ours, theirs, rtol=0, atol=0).passed
    other = theirs[::-1] ^ True if dtype == "bool" else theirs[::-1] + theirs.dtype.type(1)
    found = compare(other, theirs, rtol=0, atol=0.5)
    assert not found.passed
    assert found.max_abs == 1


def test_the_worst_element_is_the_one_that_needs_most() -> None:
    """Not the one that is farthest: a large value may be far, and fit by rtol."""
    reference, actual = np.array([1e6, 0.0]), np.array([1e6 + 50, 1e-3])
    found = compare(actual, reference, rtol=1e-4, atol=0)
    assert (found.required_atol, found.index, found.max_abs) == (1e-3, (1,), 50)

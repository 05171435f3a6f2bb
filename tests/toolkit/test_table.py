"""Plain tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnnx.table import render

cells = st.text("abc xyz019.+-%", max_size=8).map(str.strip)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    width = draw(st.integers(1, 5))
    row = st.lists(cells, min_size=width, max_size=width)
    header = draw(st.lists(st.text("abcd", min_size=1), min_size=width, max_size=width))
    return header, draw(st.lists(row, max_size=5))


def test_numbers_stand_right_and_words_left() -> None:
    shown = render(["output", "max |d|", "at"], [["y", "1.2e-07", "7"], ["s000", "-3", "index 4"]])
    assert shown.splitlines() == [
        "output  max |d|  at",
        "------  -------  -------",
        "y       1.2e-07  7",
        "s000         -3  index 4",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert render(["a", "bcd"], []) == "a  bcd\n-  ---"


@given(tables())
def test_columns_are_aligned_and_every_cell_is_there(
    table: tuple[list[str], list[list[str]]],
) -> None:
    header, rows = table
    lines = render(header, rows).split("\n")
    assert len(lines) == 2 + len(rows)
    assert all(line == line.rstrip() for line in lines)
    start = 0
    for column, rule in enumerate(lines[1].split("  ")):
        for line, row in zip([lines[0], *lines[2:]], [header, *rows], strict=True):
            assert line[start : start + len(rule)].strip() == row[column]
            assert len(row[column]) <= len(rule)
        start += len(rule) + 2


def test_ragged_rows_are_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"longer|shorter"):
        render(["a", "b"], [["1"]])

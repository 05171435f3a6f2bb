"""Plain aligned tables that read well without colour."""

from __future__ import annotations

from collections.abc import Sequence


def render(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The rows under the header; columns of numbers to the right, others to the left."""
    columns = [_column(cells) for cells in zip(header, *rows, strict=True)]
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _column(cells: Sequence[str]) -> list[str]:
    width = max(map(len, cells))
    filled = [cell for cell in cells[1:] if cell]
    numeric = bool(filled) and all(cell.lstrip("+-.")[:1].isdigit() for cell in filled)
    head, *rest = (cell.rjust(width) if numeric else cell.ljust(width) for cell in cells)
    return [head, "-" * width, *rest]

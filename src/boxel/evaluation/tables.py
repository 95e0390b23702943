"""Text tables of metrics."""

from __future__ import annotations

from collections.abc import Sequence

from boxel.utils.printable import printable_line

Cell = str | float | None


def format_table(rows: Sequence[Sequence[Cell]]) -> str:
    """Align the columns of a table, the first to the left, the others to the right; see `format_cell`.

    Examples:
        >>> print(format_table([["", "AP"], ["box", 0.5], ["mask", None]]))
                 AP
        box   0.500
        mask      -
    """
    texts = [[format_cell(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in texts)
    return "\n".join(map("  ".join, lines))


def format_cell(value: Cell) -> str:
    """Format a number with three digits, or a dash if it is undefined; whole numbers stay as they are."""
    if value is None or value != value:  # NaN
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else printable_line(str(value))

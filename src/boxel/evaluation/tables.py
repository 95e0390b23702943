"""Text tables of metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Align the columns of a table: the first to the left, the others to the right.

    Examples:
        >>> print(format_table([["", "AP"], ["box", "0.500"]]))
                AP
        box  0.500
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows)
    return "\n".join(map("  ".join, lines))


def format_share(value: float | None) -> str:
    """Format a number in [0, 1], with a dash if it is undefined.

    Examples:
        >>> format_share(0.5), format_share(None)
        ('0.500', '-')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"

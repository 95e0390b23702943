"""Charts of a page: lines as coordinates for SVG, and histograms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEFT, _TOP, _WIDTH, _HEIGHT = 58, 22, 402, 240  # of the axes, in a picture of 480 x 300


def make_chart(
    title: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    axis: str,
    span: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """Return what the template draws of lines over a common axis.

    Args:
        title: What the values are.
        lines: By name, x and y of each point; points that are not finite are left out. A name without points keeps the
            colors of the others.
        axis: What x is.
        span: The values at the lower and the upper end. None: from 0, or the lowest value, to a round number.

    Examples:
        >>> chart = make_chart("loss", {"total": ([1, 2], [1.0, 0.5])}, "step")
        >>> chart["lines"][0]["points"], [label for _, label in chart["rows"]]
        ('58.0,22.0 460.0,142.0', ['0', '0.5', '1'])
    """
    points = {
        name: [(a, b) for a, b in zip(x, y, strict=True) if b is not None and math.isfinite(b)]
        for name, (x, y) in lines.items()
    }
    xs = [x for known in points.values() for x, _ in known] or [0, 1]
    ys = [y for known in points.values() for _, y in known] or [0, 1]
    low, high = (min(0.0, *ys), _round_up(max(ys))) if span is None else span
    first, last = min(xs), max(xs)

    def place(x: float, y: float) -> tuple[float, float]:
        across = 0.5 if first == last else (x - first) / (last - first)
        up = min(max((y - low) / ((high - low) or 1), 0), 1)
        return round(_LEFT + _WIDTH * across, 1), round(_TOP + _HEIGHT * (1 - up), 1)

    drawn = []
    for color, (name, known) in enumerate(points.items()):
        if not known:
            continue
        places = [place(*point) for point in known]
        dot = places[0] if len(places) == 1 else None
        drawn.append(
            {"name": name, "color": color, "points": " ".join(f"{x},{y}" for x, y in places), "dot": dot}
        )
    rows = [(round(_TOP + _HEIGHT * (1 - k / 2), 1), f"{low + (high - low) * k / 2:.3g}") for k in range(3)]
    columns = [(place(x, low)[0], f"{x:.4g}") for x in np.linspace(first, last, 3 if last > first else 1)]
    return {
        "title": title,
        "axis": axis,
        "lines": drawn,
        "has_legend": len(points) > 1,
        "rows": rows,
        "columns": columns,
    }


def _round_up(value: float) -> float:
    """Return 1, 2 or 5 times a power of ten that is at least a value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((power * k for k in (1, 2, 5) if power * k >= value * (1 - 1e-9)), 10 * power)


def make_histogram(values: NDArray[np.float64]) -> dict[str, Any]:
    """Count the values in each tenth of [0, 1]; also return their mean and median."""
    # Tenths as they are written; np.linspace has 0.30000000000000004.
    counts = np.histogram(values, np.arange(11) / 10)[0].tolist()
    return {"counts": counts, "mean": float(values.mean()), "median": float(np.median(values))}

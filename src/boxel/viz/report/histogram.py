"""A histogram as SVG: the size of a page's text at any width, in the page's own colors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BINS = 10
_GAP = 2  # on each side of a bar
_WIDTH, _HEIGHT = 480, 216  # of the drawing, in units that CSS scales
_LEFT, _RIGHT, _TOP, _BOTTOM = 12, 468, 50, 190  # of the area of the bars


def histogram(values: NDArray[np.float64]) -> str:
    """Bars with their counts over ten equal parts of [0, 1], with lines at the mean and the median.

    Args:
        values: (N,) in [0, 1], one at least.
    """
    # Tenths as they are written; np.linspace has 0.30000000000000004.
    counts = np.histogram(values, np.arange(_BINS + 1) / _BINS)[0].tolist()
    mean, median = float(values.mean()), float(np.median(values))
    bars = "".join(_bar(k, count / max(counts)) for k, count in enumerate(counts))
    figures = "".join(_count(k, count, count / max(counts)) for k, count in enumerate(counts) if count)
    ticks = "".join(
        f'<text x="{_x(k / _BINS):.1f}" y="{_BOTTOM + 18}">{k / _BINS:g}</text>' for k in range(_BINS + 1)
    )
    axis = f'<line class="axis" x1="{_LEFT}" y1="{_BOTTOM}" x2="{_RIGHT}" y2="{_BOTTOM}"/>'
    lines = _mark("mean", mean, _LEFT) + _mark("median", median, _LEFT + 130)
    label = f"Histogram of the quality of {len(values):,} masks: mean {mean:.2f}, median {median:.2f}"
    return (
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">'
        f"{bars}{axis}{ticks}{lines}{figures}</svg>"
    )


def _x(value: float) -> float:
    return _LEFT + value * (_RIGHT - _LEFT)


def _bar(k: int, height: float) -> str:
    """The bar of a bin, of a height in [0, 1]."""
    down = height * (_BOTTOM - _TOP)
    width = (_RIGHT - _LEFT) / _BINS - 2 * _GAP
    return f'<rect x="{_x(k / _BINS) + _GAP:.1f}" y="{_BOTTOM - down:.1f}" width="{width:.1f}" height="{down:.1f}"/>'


def _count(k: int, count: int, height: float) -> str:
    """The count that stands on the bar of a bin."""
    x, y = _x((k + 0.5) / _BINS), _BOTTOM - height * (_BOTTOM - _TOP) - 5
    # No wider than the bar.
    shown = f"{count:,}" if count < 100_000 else f"{count // 1000:,}k"
    return f'<text class="count" x="{x:.1f}" y="{y:.1f}">{shown}</text>'


def _mark(name: str, value: float, legend: float) -> str:
    """A line across the bars, and its key above them."""
    x = _x(value)
    return (
        f'<line class="{name}" x1="{x:.1f}" y1="{_TOP - 22}" x2="{x:.1f}" y2="{_BOTTOM}"/>'
        f'<line class="{name}" x1="{legend}" y1="12" x2="{legend + 22}" y2="12"/>'
        f'<text class="key" x="{legend + 28}" y="17">{name} {value:.2f}</text>'
    )

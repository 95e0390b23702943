"""Tight boxes of many run-length codes at once, without decoding masks.

Codes are parsed here and not by pycocotools, whose parser trusts them to be well-formed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


class Code(msgspec.Struct, gc=False):
    """A COCO run-length code as written: (height, width), and its runs as text or as numbers."""

    size: tuple[int, int]
    counts: str | list[int]


def parse_codes(codes: Sequence[Code]) -> tuple[list[NDArray[np.int64]], list[str]]:
    """Return the runs of codes of either form, and what is wrong with each; an empty text if nothing is."""
    parsed = iter(parse_text([code.counts for code in codes if isinstance(code.counts, str)]))
    runs, problems = [], []
    for code in codes:
        found = next(parsed) if isinstance(code.counts, str) else _numbers(code.counts)
        height, width = code.size
        if min(height, width) < 1:
            problem = f"its size is {[height, width]}"
        elif found is None:
            problem = "its run-length code is malformed"
        elif found.sum() != height * width:
            problem = f"its runs add up to {found.sum()} pixels, not to {height} x {width}"
        else:
            problem = ""
        runs.append(np.zeros(1, dtype=np.int64) if found is None else found)
        problems.append(problem)
    return runs, problems


def _numbers(counts: list[int]) -> NDArray[np.int64] | None:
    valid = counts and min(counts) >= 0 and max(counts) < 2**35
    return np.array(counts, dtype=np.int64) if valid else None


def parse_text(codes: Sequence[str]) -> list[NDArray[np.int64] | None]:
    """Return the runs of compressed COCO codes, None for a malformed code.

    A run is a number in base 32, least significant digit first. Each digit is a character from ``0`` (48) on; 32 is
    added to all but a number's last digit, and 16 in the last one is a minus. From the fourth run on, a number is the
    difference from the run two before.
    """
    texts = [code.encode("ascii", "xmlcharrefreplace") for code in codes]  # puts "&", which is not a digit
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    digits = np.frombuffer(b"".join(texts), dtype=np.uint8).astype(np.int64) - 48
    ends = np.cumsum(lengths)
    good = lengths > 0
    stray = np.concatenate([[0], np.cumsum((digits < 0) | (digits > 63))])
    good &= stray[ends] == stray[ends - lengths]
    good[good] &= digits[ends[good] - 1] < 32  # its last number ends
    if not good.any():
        return [None] * len(texts)

    digits = digits[np.repeat(good, lengths)]
    lengths = lengths[good]
    last = np.flatnonzero((digits & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    place = np.arange(len(digits)) - np.repeat(first, last - first + 1)
    values = np.add.reduceat((digits & 31) << np.minimum(5 * place, 40), first)
    values -= np.where(digits[last] & 16, 1 << np.minimum(5 * (last - first + 1), 45), 0)
    long = last - first >= 7  # 35 bits are more than any image needs

    stops = np.searchsorted(last, np.cumsum(lengths) - 1) + 1  # numbers up to each code's end
    starts = np.concatenate([[0], stops[:-1]])
    index = np.arange(len(values)) - np.repeat(starts, stops - starts)
    runs = values.copy()
    for parity in (0, 1):  # each run is a sum of differences along its own parity; run 0 stands alone
        chain = (index % 2 == parity) & (index > 0)
        total = np.cumsum(np.where(chain, values, 0))
        runs[chain] = (total - np.repeat(total[starts], stops - starts))[chain]
    wrong = np.logical_or.reduceat(long | (runs < 0), starts)

    parsed = iter([None if bad else runs[a:b] for a, b, bad in zip(starts, stops, wrong, strict=True)])
    return [next(parsed) if ok else None for ok in good]


def tight_boxes(codes: Sequence[NDArray[np.int64]], heights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the tight boxes of masks given as runs.

    Args:
        codes: M arrays of runs down the columns, background first; none may be empty.
        heights: (M,) heights of the masks in pixels, each at least 1.

    Returns:
        (M, 4) float64 xyxy; NaN for a mask without pixels.
    """
    boxes = np.full((len(codes), 4), np.nan)
    if not len(codes):
        return boxes
    lengths = np.array([len(code) for code in codes], dtype=np.int64)
    runs = np.concatenate(codes)
    starts = np.cumsum(lengths) - lengths
    index = np.arange(len(runs)) - np.repeat(starts, lengths)
    total = np.cumsum(runs)
    end = total - np.repeat(total[starts] - runs[starts], lengths)
    owner = np.repeat(np.arange(len(codes)), lengths)

    ink = (index % 2 == 1) & (runs > 0)
    if not ink.any():
        return boxes
    end, start, owner = end[ink], (end - runs)[ink], owner[ink]
    height = np.asarray(heights, dtype=np.int64)[owner]
    x0, x1 = start // height, (end - 1) // height + 1
    wraps = x1 - x0 > 1  # a run that continues in the next column touches the lower and the upper edge
    y0 = np.where(wraps, 0, start % height)
    y1 = np.where(wraps, height, (end - 1) % height + 1)

    first = np.flatnonzero(np.diff(owner, prepend=-1))
    boxes[owner[first]] = np.column_stack(
        [
            np.minimum.reduceat(x0, first),
            np.minimum.reduceat(y0, first),
            np.maximum.reduceat(x1, first),
            np.maximum.reduceat(y1, first),
        ]
    )
    return boxes

"""CVAT's code of masks: the lengths of runs along the rows of a mask, of which the first is background."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def decode_rows(text: str, height: int, width: int) -> NDArray[np.bool_]:
    """Decode runs along the rows of a mask, of which the first is background.

    Raises:
        ValueError: The runs do not fill the mask, or are not whole numbers.

    Examples:
        >>> decode_rows("1, 3", 2, 2).astype(int).tolist()
        [[0, 1], [1, 1]]
    """
    runs = np.array(text.split(","), dtype=np.float64)  # some programs write 100.0
    if not np.isfinite(runs).all() or (runs % 1).any():
        raise ValueError("its runs are not whole numbers")
    if runs.min() < 0 or runs.max() > height * width or runs.sum() != height * width:
        raise ValueError(f"its runs do not fill {width} x {height} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs.astype(np.int64)).reshape(height, width)


def encode_rows(mask: NDArray[Any]) -> str:
    """Encode an (H, W) mask as runs along its rows; see `decode_rows`.

    Examples:
        >>> encode_rows(np.array([[0, 1], [1, 1]]))
        '1, 3'
    """
    values = np.concatenate([[0], mask.ravel() != 0])
    ends = np.append(np.flatnonzero(np.diff(values)), mask.size)
    return ", ".join(map(str, np.diff(ends, prepend=0).tolist()))

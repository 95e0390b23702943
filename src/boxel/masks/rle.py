"""COCO segmentations (polygons and run-length codes) to and from binary masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Rle: TypeAlias = dict[str, Any]
"""A compressed COCO run-length code: ``{"size": [height, width], "counts": str}``."""

Segmentation: TypeAlias = Sequence[Sequence[float]] | Mapping[str, Any]
"""A COCO segmentation: polygons ``[[x0, y0, x1, y1, ...], ...]`` or a run-length code in either form."""


def encode(mask: NDArray[Any]) -> Rle:
    """Run-length code of a binary mask.

    Args:
        mask: (H, W), any dtype; non-zero is foreground.

    Returns:
        The compressed code, its counts as ``str`` so that it goes into JSON as it is.
    """
    return _as_text(coco_mask.encode(np.asfortranarray(mask != 0, dtype=np.uint8)))


def decode(rle: Rle) -> NDArray[np.uint8]:
    """(H, W) uint8 mask of zeros and ones."""
    return coco_mask.decode(rle)


def to_rle(segmentation: Segmentation, height: int, width: int) -> Rle:
    """Any COCO segmentation as one compressed run-length code of a ``height`` x ``width`` image.

    Args:
        segmentation: polygons, a compressed code or an uncompressed one.
        height: pixels.
        width: pixels.

    Raises:
        ValueError: the segmentation is empty or malformed, or a code is of another size than the image.
    """
    if isinstance(segmentation, Mapping):
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"a run-length code of size {segmentation['size']} in an image of [{height}, {width}]")
        if isinstance(segmentation["counts"], list):
            return _as_text(coco_mask.frPyObjects(dict(segmentation), height, width))
        return _as_text(dict(segmentation))
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not polygons:
        raise ValueError("no polygon of three or more vertices")
    return _as_text(coco_mask.merge(coco_mask.frPyObjects([list(map(float, p)) for p in polygons], height, width)))


def encode_in_box(mask: NDArray[Any], x0: int, y0: int, height: int, width: int) -> Rle:
    """Run-length code of a ``height`` x ``width`` image that is zero but for ``mask`` at (x0, y0).

    The image itself is never made, so a small mask in a huge image costs only its own size.

    Args:
        mask: (h, w), any dtype; non-zero is foreground. It must lie inside the image.
        x0: column of the mask's left edge.
        y0: row of the mask's upper edge.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    h, w = mask.shape
    if h == 0 or w == 0:
        counts = [height * width]
    else:
        # Codes run down the columns. A zero below each column keeps its last run from touching the next one's first.
        columns = np.zeros((w, h + 1), dtype=np.int8)
        columns[:, :h] = (mask != 0).T
        edges = np.diff(columns.ravel(), prepend=0)
        starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
        offset = x0 * height + y0
        starts = offset + starts // (h + 1) * height + starts % (h + 1)
        ends = offset + ends // (h + 1) * height + ends % (h + 1)
        # Where the mask is as tall as the image, a run goes on over the column's end: join the two.
        apart = starts[1:] != ends[:-1]
        starts, ends = starts[np.r_[True, apart]] if len(starts) else starts, ends[np.r_[apart, True]] if len(ends) else ends
        bounds = np.empty(2 * len(starts) + 2, dtype=np.int64)
        bounds[0], bounds[-1] = 0, height * width
        bounds[1:-1:2], bounds[2:-1:2] = starts, ends
        counts = np.diff(bounds).tolist()
    return _as_text(coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width))


def _as_text(rle: Rle) -> Rle:
    counts = rle["counts"]
    return {"size": [int(n) for n in rle["size"]], "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}

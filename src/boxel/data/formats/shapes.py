"""What CVAT and Label Studio draw an object as: a polygon, pixels, or a box, which may be rotated."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxel.data.formats.extras import decode_extras
from boxel.data.formats.geometry import enclose
from boxel.data.formats.layout import Export
from boxel.data.formats.rotated import find_rotated
from boxel.masks.rle import decode_in_box, polygon_area


class Shape(NamedTuple):
    """A polygon, pixels, or else a box.

    Attributes:
        points: (n, 2) vertices of a polygon in pixels; none if it is not one.
        mask: (h, w) pixels of a mask; none if it is not drawn as pixels.
        corner: Left column and top row of the pixels.
        box: (4,) xyxy box.
        rotated: See `find_rotated`.
    """

    points: NDArray[np.float64]
    mask: NDArray[np.uint8]
    corner: tuple[int, int]
    box: NDArray[np.float64]
    rotated: tuple[tuple[float, float], float, float, float] | None = None


def add_shape(export: Export, instance: int, image: int, as_polygon: bool) -> Shape | None:
    """Choose what an instance is drawn as, and note in the export that it is written.

    A polygon of one ring stays one, and any other mask becomes pixels, or a polygon too if wanted.

    Returns:
        None if there is only a box that is not finite.
    """
    no_points, no_mask = np.zeros((0, 2)), np.zeros((0, 0), dtype=np.uint8)
    data, box = export.data, export.data.boxes[instance]
    if as_polygon:
        rings = export.rings(instance, image, joined=True)[:1]
    else:
        rle = export.rle(instance, image)
        segmentation: Any = None if rle is None else data.segmentation(instance)
        rings = [ring for ring in segmentation if len(ring) >= 6] if isinstance(segmentation, list) else []
        if len(rings) != 1 and rle is not None:
            mask, x, y = decode_in_box(rle)
            if mask.size:
                export.add(image, instance, [x, y, x + mask.shape[1], y + mask.shape[0]], int(mask.sum()))
                return Shape(no_points, mask, (x, y), box)
            rings = []
    if rings:
        points = np.reshape(rings[0], (-1, 2)).astype(float)
        export.add(image, instance, enclose(points.tolist()), polygon_area(points))
        return Shape(points, no_mask, (0, 0), box)
    if not np.isfinite(box).all():
        return None
    export.add(image, instance)
    return Shape(no_points, no_mask, (0, 0), box, find_rotated(decode_extras(data.extras[instance]), box))

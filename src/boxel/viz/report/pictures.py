"""Small pictures of masks over their images, embedded in the page."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.masks.crops import crop, crop_spans
from boxel.masks.rle import Rle, decode
from boxel.utils.errors import BoxelError
from boxel.viz.config import DrawConfig
from boxel.viz.overlays import Objects, draw_objects
from boxel.viz.report.render import embed

SIDE = 480
"""Longer side of a picture, in pixels."""

_MARGIN = 0.2  # of the image on each side of a box, as a share of its longer side
_MIN_PIXELS = 48.0  # of the image, so that a picture of a tiny box shows where it is


def draw_masks(
    data: Annotations, instances: Iterable[int], side: int = SIDE
) -> dict[int, dict[str, str] | str]:
    """Draw instances: the image around the box, the mask tinted and rimmed, and the box.

    Each image is read once. By instance it returns a picture of ``side`` pixels named `mask`, or the message of the
    error.
    """
    read = lru_cache(maxsize=1)(read_image)
    drawn: dict[int, dict[str, str] | str] = {}
    for instance in sorted(instances, key=lambda one: data.image_index[one]):
        try:
            image = read(data.image_path(int(data.image_index[instance])))
            rle = data.rle(instance, (image.shape[0], image.shape[1]))
            drawn[instance] = {"mask": embed(draw_picture(image, data.boxes[instance], rle, side))}
        except BoxelError as error:
            drawn[instance] = str(error)
    return drawn


def draw_picture(
    image: NDArray[np.uint8],
    box: NDArray[np.float64],
    rle: Rle | None,
    side: int = SIDE,
    color: int | None = 0,
) -> NDArray[np.uint8]:
    """Draw an object: the image around the box, the mask tinted and rimmed, and the box.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: (4,) xyxy pixels.
        rle: The mask, or None.
        side: Longer side of the picture in pixels.
        color: Number of the color; None for the plain image.

    Returns:
        (h, w, 3) uint8 RGB, square unless the image ends nearby.
    """
    height, width = image.shape[:2]
    box = box.clip(0, [width, height] * 2)
    window = _window(box, height, width)
    shown = crop(image, window, side)
    if color is not None:
        mask = None if rle is None else crop(decode(rle) * np.uint8(255), window, side) > 127
        shown_box = (box - np.tile(window[:2], 2)) * side / (window[2] - window[0])
        shown = draw_objects(shown, Objects(shown_box[None], [mask], [color], [""]), DrawConfig())
    rows, columns = crop_spans((0, 0, width, height), window, side)
    return shown[rows][:, columns]


def _window(box: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return a square (4,) xyxy around a box and its margin, inside the image as far as it fits."""
    side = max((box[2:] - box[:2]).max() * (1 + 2 * _MARGIN), _MIN_PIXELS)
    room = np.array([width, height]) - side
    lowest = np.minimum(room / 2, 0)  # a smaller image is centered
    corner = ((box[:2] + box[2:] - side) / 2).clip(lowest, np.maximum(room, lowest))
    return np.concatenate([corner, corner + side])

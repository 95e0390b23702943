"""Pictures of objects and parts of images, as a browser asks for them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from boxel.data.images import in_turn
from boxel.labeling.shard import load_image
from boxel.masks.boxes import Region
from boxel.masks.rle import Rle, decode_in_box
from boxel.review.session import Review
from boxel.utils.errors import BoxelError
from boxel.viz.output import encode_image
from boxel.viz.report.pictures import draw_picture

MAX_SIDE = 2048
"""Maximum side of a picture in pixels."""

THUMBNAIL_SIDE = 320
"""Longer side of the picture of an object in pixels."""

_QUALITY = 85  # of JPEG and WebP files
_MAX_IMAGE_BYTES = 400_000_000  # of decoded images that are kept
_MAX_PICTURES = 3000  # pictures that are kept, about 20 kB each

T = TypeVar("T")


class Cache(Generic[T]):
    """Values by key, up to a total size; those that were not used for the longest time go first.

    Several threads may use one; each value is made once at a time.

    Examples:
        >>> cache = Cache[str](max_size=2, size=len)
        >>> cache.get("a", lambda: "x"), cache.get("b", lambda: "yy"), list(cache.values)
        ('x', 'yy', ['b'])
    """

    def __init__(self, max_size: int, size: Callable[[T], int]) -> None:
        self.max_size, self.size = max_size, size
        self.values: OrderedDict[Hashable, T] = OrderedDict()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key; make it if it is missing."""
        with self._lock:
            if key in self.values:
                self.values.move_to_end(key)
                return self.values[key]
            own = self._locks.setdefault(key, threading.Lock())
        with own:
            with self._lock:
                if key in self.values:
                    return self.values[key]
            try:
                value = make()
            finally:
                with self._lock:
                    self._locks.pop(key, None)
            with self._lock:
                self.values[key] = value
                total = sum(map(self.size, self.values.values()))
                while total > self.max_size and len(self.values) > 1:
                    total -= self.size(self.values.popitem(last=False)[1])
            return value


class Pictures:
    """Pictures of a review, made when they are asked for, and kept in memory for a while."""

    def __init__(self, review: Review) -> None:
        self._review = review
        self._images = Cache[NDArray[np.uint8]](_MAX_IMAGE_BYTES, lambda image: image.nbytes)
        self._thumbnails = Cache[bytes](_MAX_PICTURES, lambda _: 1)

    def image(self, image: int) -> NDArray[np.uint8]:
        """Return the (H, W, 3) pixels of an image.

        Raises:
            BoxelError: It cannot be read, or is of another size than the annotations state.
        """
        with in_turn(self._review.data.image_path(image)):
            return self._images.get(image, lambda: load_image(self._review.data, image))

    def thumbnail(self, row: int, plain: bool) -> bytes:
        """Return a WebP file of an object with its mask and box, or of the plain image there."""
        entry = self._review.entry(row)
        return self._thumbnails.get((row, entry.version, plain), lambda: self._draw_thumbnail(row, plain))

    def part(self, image: int, window: tuple[float, float, float, float], width: int) -> bytes:
        """Return a JPEG file of a window of an image, xyxy pixels, with at most so many columns."""
        pixels = self.image(image)
        limits = np.array(pixels.shape[1::-1] * 2)
        if not np.isfinite(window).all():
            raise BoxelError("the corners of a window are numbers.")
        x0, y0, x1, y1 = np.clip(window, 0, limits).tolist()
        if not (x1 - x0 >= 1 and y1 - y0 >= 1):
            raise BoxelError("this window is outside the image.")
        region = Region(int(x0), int(y0), int(np.ceil(x1)), int(np.ceil(y1)))
        part = pixels[region.slices]
        # Enlarging is left to the browser.
        scale = min(width / part.shape[1], MAX_SIDE / part.shape[0], 1.0)
        size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
        shown = cv2.resize(part, size, interpolation=cv2.INTER_AREA) if scale < 1 else part
        return encode_image(np.asarray(shown, dtype=np.uint8), "JPEG", quality=_QUALITY)

    def _draw_thumbnail(self, row: int, plain: bool) -> bytes:
        review = self._review
        decision = review.entry(row).decision
        image = self.image(int(review.image_index[row]))
        box = np.array(decision.box)
        color = None if plain else int(review.labels[row])
        drawn = draw_picture(image, box, review.rle(row), THUMBNAIL_SIDE, color)
        return encode_image(drawn, "WEBP", quality=_QUALITY)


class MaskPng(NamedTuple):
    """A mask as a PNG file, whose alpha channel it is, and its place in the image: left column and top row."""

    png: bytes
    left: int
    top: int


def mask_png(rle: Rle | None) -> MaskPng | None:
    """Return a mask as a PNG file; None if there is none, or it is empty.

    Examples:
        >>> from boxel.masks.rle import encode_in_box
        >>> mask_png(encode_in_box(np.ones((2, 2)), 3, 4, 10, 10))[1:]
        (3, 4)
    """
    mask, left, top = (np.zeros((0, 0), np.uint8), 0, 0) if rle is None else decode_in_box(rle)
    if not mask.size:
        return None
    pixels = np.zeros((*mask.shape, 4), np.uint8)
    pixels[mask > 0] = 255
    encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    return MaskPng(encoded.tobytes(), left, top)

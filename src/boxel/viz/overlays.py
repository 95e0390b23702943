"""Draw boxes, masks and label maps over their images, and lay images out on sheets."""

from __future__ import annotations

import colorsys
import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageOps

from boxel.data.annotations import Annotations
from boxel.data.formats.layout import file_stems
from boxel.data.formats.voc import palette
from boxel.data.images import ImageError, describe_missing, read_image
from boxel.data.label_maps import make_label_map, pixel_classes
from boxel.masks.rle import Rle, decode
from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path, not_written
from boxel.utils.progress import progress

logger = logging.getLogger(__name__)

_OPACITY = 0.45
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def overlay(
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    masks: Sequence[Rle | None] | NDArray[np.bool_] | None = None,
    labels: ArrayLike | None = None,
    names: Sequence[str] = (),
    scores: ArrayLike | None = None,
) -> NDArray[np.uint8]:
    """Draw instances over their image, each in its own color.

    Lines and text grow with the image. A mask tints its pixels and gets a solid rim inside its edge. Masks are decoded
    one at a time.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        boxes: (N, 4) xyxy pixels.
        masks: N run-length codes of size (H, W), None for an instance that has only a box; or (N, H, W) bool; or None
            if no instance has a mask.
        labels: (N,) int, indices into ``names``. None: no names.
        names: Names of the classes.
        scores: (N,) in [0, 1], NaN for an instance without one. None: no scores.

    Returns:
        (H, W, 3) uint8 RGB.

    Examples:
        >>> image = np.zeros((40, 60, 3), dtype=np.uint8)
        >>> drawn = overlay(image, [[10, 10, 50, 30]], labels=[0], names=["cat"], scores=[0.9])
        >>> drawn.shape, bool(drawn.any()), bool(image.any())
        ((40, 60, 3), True, False)
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    canvas = image.copy()
    shorter = min(canvas.shape[:2])
    thickness = max(1, round(shorter / 300))
    for index, mask in enumerate(masks if masks is not None else ()):
        if mask is not None:
            pixels = decode(mask) if isinstance(mask, dict) else mask.astype(np.uint8)
            _tint(canvas, pixels, _instance_color(index), thickness)
    # OpenCV refuses coordinates beyond 32 bits; what lies outside the image is not drawn anyway.
    height, width = canvas.shape[:2]
    corners = boxes.clip([-width, -height] * 2, [2 * width, 2 * height] * 2).astype(int)
    for index, (x0, y0, x1, y1) in enumerate(corners.tolist()):
        cv2.rectangle(canvas, (x0, y0), (x1, y1), _instance_color(index), thickness)
    _write_texts(canvas, corners, _make_texts(len(boxes), labels, names, scores), max(0.3, shorter / 800))
    return canvas


@cache
def _instance_color(index: int) -> tuple[int, int, int]:
    """Return the color of an instance: hues a golden ratio apart, so that neighbors in the order differ."""
    hue, dark = (0.75 + index * 0.618034) % 1, index % 3 == 2
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.75 if dark else 0.98))  # type: ignore[return-value]


def _tint(
    canvas: NDArray[np.uint8], mask: NDArray[np.uint8], color: tuple[int, int, int], thickness: int
) -> None:
    """Blend a color into the pixels of a mask, in place, and paint the rim of the mask in it."""
    x, y, w, h = cv2.boundingRect(mask)
    inside = mask[y : y + h, x : x + w]
    if not inside.size:
        return
    region = canvas[y : y + h, x : x + w]
    kernel = np.ones((2 * thickness + 1, 2 * thickness + 1), dtype=np.uint8)
    core = cv2.erode(np.ascontiguousarray(inside), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    tinted = region * (1 - _OPACITY) + np.array(color) * _OPACITY
    region[inside > 0] = np.round(tinted[inside > 0])
    region[inside > core] = color


def _make_texts(
    count: int, labels: ArrayLike | None, names: Sequence[str], scores: ArrayLike | None
) -> list[str]:
    """Return the text at each box: its name, its score, both or none."""
    words = [""] * count if labels is None else [names[label] for label in np.asarray(labels).tolist()]
    numbers = [""] * count
    if scores is not None:
        numbers = ["" if np.isnan(score) else f"{score:.2f}" for score in np.asarray(scores)]
    return [f"{word} {number}".strip() for word, number in zip(words, numbers, strict=True)]


def _write_texts(
    canvas: NDArray[np.uint8], corners: NDArray[np.int64], texts: list[str], scale: float
) -> None:
    """Write each text above its box, in place; below or inside the box if that place is taken or outside."""
    weight, padding = max(1, round(1.5 * scale)), max(1, round(6 * scale))
    height, width = canvas.shape[:2]
    taken: list[tuple[int, int, int, int]] = []
    for index, ((x0, y0, _, y1), text) in enumerate(zip(corners.tolist(), texts, strict=True)):
        if not text:
            continue
        (w, h), base = cv2.getTextSize(text, _FONT, scale, weight)
        w, h = w + 2 * padding, h + base + 2 * padding
        left = min(max(x0, 0), max(width - w, 0))
        places = [(left, min(max(top, 0), max(height - h, 0))) for top in (y0 - h, y1, y0, y1 - h)]
        left, top = next((place for place in places if not _overlaps(place, w, h, taken)), places[0])
        taken.append((left, top, left + w, top + h))
        color = _instance_color(index)
        cv2.rectangle(canvas, (left, top), (left + w, top + h), color, cv2.FILLED)
        luma = float(np.dot(color, (0.299, 0.587, 0.114)))  # ITU-R BT.601
        place = left + padding, top + h - base - padding
        cv2.putText(canvas, text, place, _FONT, scale, _BLACK if luma > 140 else _WHITE, weight, cv2.LINE_AA)


def _overlaps(place: tuple[int, int], w: int, h: int, taken: list[tuple[int, int, int, int]]) -> bool:
    left, top = place
    return any(left < x1 and left + w > x0 and top < y1 and top + h > y0 for x0, y0, x1, y1 in taken)


def overlay_labels(
    image: NDArray[np.uint8], labels: NDArray[np.integer], names: Sequence[str]
) -> NDArray[np.uint8]:
    """Draw the classes of pixels over their image, outlined in white, above a legend of the classes present.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        labels: (H, W), indices into ``names``; other pixels, and those of a class `background`, keep their color.
        names: Names of the classes.

    Returns:
        (H + legend, W, 3) uint8 RGB.

    Examples:
        >>> image, labels = np.zeros((20, 60, 3), dtype=np.uint8), np.zeros((20, 60), dtype=np.uint8)
        >>> labels[:, 30:] = 1
        >>> overlay_labels(image, labels, ["background", "cat"]).shape
        (36, 60, 3)
    """
    shown = [k for k in np.unique(labels).tolist() if k < len(names) and names[k] != "background"]
    canvas = image.astype(np.float64)
    for k in shown:
        canvas[labels == k] = canvas[labels == k] * (1 - _OPACITY) + np.array(_class_color(k)) * _OPACITY
    # The outline separates a class from pixels of a similar color, e.g. dark green from grass.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    edges = cv2.morphologyEx(labels.astype(np.uint8), cv2.MORPH_GRADIENT, cross) > 0
    canvas[edges & np.isin(labels, shown)] = 255
    return np.concatenate([np.round(canvas).astype(np.uint8), _draw_legend(image.shape[1], shown, names)])


@cache
def _class_color(label: int) -> tuple[int, int, int]:
    """Return the color of a class: Pascal VOC's, without its black for the background."""
    return tuple(palette()[3 * (label + 1) : 3 * (label + 2)])  # type: ignore[return-value]


def _draw_legend(width: int, shown: Sequence[int], names: Sequence[str]) -> NDArray[np.uint8]:
    """Draw the names of classes beside their colors, in as many rows as needed: (h, width, 3)."""
    scale, line = 0.4, 16
    places, x, y = [], 4, 0
    for k in shown:
        length = cv2.getTextSize(names[k], _FONT, scale, 1)[0][0] + 20
        x, y = (4, y + line) if x > 4 and x + length > width else (x, y)
        places.append((k, x, y))
        x += length
    strip = np.full((y + line if places else 0, width, 3), 255, dtype=np.uint8)
    for k, x, y in places:
        strip[y + 4 : y + 12, x : x + 10] = _class_color(k)
        cv2.putText(strip, names[k], (x + 14, y + 12), _FONT, scale, _BLACK, 1, cv2.LINE_AA)
    return strip


def overlay_annotations(data: Annotations, image: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draw what a dataset states about one image: its label map if it has one, else boxes, masks and their quality.

    A mask that cannot be read is logged, and its box drawn alone. A label map is drawn with a legend below.
    """
    size = pixels.shape[:2]
    if data.label_maps[image] is not None:
        names = [category.name for category in pixel_classes(data)]
        return overlay_labels(pixels, make_label_map(data, image, size), names)
    own = data.instances_in(image)
    masks: list[Rle | None] = []
    for instance in own.tolist():
        try:
            masks.append(data.rle(instance, size))
        except BoxelError as error:
            logger.warning("%s", error)
            masks.append(None)
    names = [category.name for category in data.categories]
    return overlay(pixels, data.boxes[own], masks, data.labels[own], names, data.quality[own])


def draw_dataset(data: Annotations, out: str | os.PathLike[str]) -> list[str]:
    """Draw every image of a dataset into a folder, each decoded once.

    An image that cannot be read is logged and skipped.

    Args:
        data: The dataset. Detections become one by :func:`boxel.evaluation.to_annotations`.
        out: Folder of the drawings, JPEG files named like the images.

    Returns:
        A message per image that was skipped.

    Raises:
        BoxelError: The folder cannot be written.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes(2)
        >>> draw_dataset(scenes, scenes.root / "drawn")
        []
        >>> sorted(path.name for path in (scenes.root / "drawn").iterdir())
        ['000000.jpg', '000001.jpg']
    """
    errors = []
    names = [f"{stem}.jpg" for stem in file_stems(data.paths)]
    warn_of_other_drawings(Path(out), names)
    with progress(len(data), "images") as advance:
        for image, name in enumerate(names):
            try:
                pixels = read_image(data.image_path(image))
                drawn = overlay_annotations(data, image, pixels)
            except BoxelError as error:
                if not isinstance(error, ImageError) or error.kind != "image-missing":
                    logger.warning("skipped: %s", error)
                errors.append(str(error))
            else:
                save_image(drawn, Path(out) / name)
            advance(1)
    if errors and (missing := describe_missing(map(data.image_path, range(len(data))))):
        logger.warning("%s", missing)
    return errors


def warn_of_other_drawings(folder: Path, names: Sequence[str]) -> None:
    """Log a warning if a folder has other JPEG files than those that are going to be drawn into it."""
    others = {file.name for file in folder.glob("*.jpg")} - set(names)
    if others:
        logger.warning(
            "%s has %d other drawings, e.g. %s, which stay there; name a new folder to have these alone",
            *(folder, len(others), min(others)),
        )


def contact_sheet(images: Sequence[NDArray[np.uint8]], columns: int, cell: int) -> NDArray[np.uint8]:
    """Lay images out row by row on white, each fitted into a square; each row is as high as its highest image.

    Args:
        images: (H, W, 3) uint8 RGB, of any sizes.
        columns: Images per row.
        cell: Side of the square, in pixels.

    Returns:
        (height, columns * cell, 3) uint8 RGB; one white row of ``cell`` pixels for no images.

    Examples:
        >>> contact_sheet([np.zeros((10, 20, 3), np.uint8)] * 3, columns=2, cell=40).shape
        (40, 80, 3)
    """
    fitted = [ImageOps.contain(Image.fromarray(i), (cell, cell), Image.Resampling.BILINEAR) for i in images]
    rows = [fitted[at : at + columns] for at in range(0, len(fitted), columns)]
    heights = [max(image.height for image in row) for row in rows]
    sheet = Image.new("RGB", (columns * cell, sum(heights) or cell), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            place = column * cell + (cell - image.width) // 2, top + (height - image.height) // 2
            sheet.paste(image, place)
        top += height
    return np.asarray(sheet)


def save_image(image: NDArray[np.uint8], path: str | os.PathLike[str]) -> None:
    """Write an image; its folder is created if needed.

    Args:
        image: (H, W, 3) RGB or (H, W), uint8.
        path: The file; its suffix decides the format.

    Raises:
        BoxelError: The file cannot be written or its suffix is not that of an image format.

    Examples:
        >>> from boxel.data import example_scenes
        >>> save_image(np.zeros((48, 64, 3), np.uint8), example_scenes().root / "black.png")
    """
    with writing_file(path) as file:
        Image.fromarray(image).save(file)


def encode_image(image: NDArray[np.uint8], format: str = "PNG", **options: int) -> bytes:
    """Encode an image, e.g. for a page or a notebook; ``options`` are those of Pillow's format."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, format, **options)
    return file.getvalue()


class Drawable:
    """Base class of results that a notebook shows as pictures."""

    def plot(self) -> NDArray[np.uint8]:
        """Draw the result over its image."""
        raise NotImplementedError

    def _repr_png_(self) -> bytes | None:
        """Draw the result for a notebook; None, which shows its text, if there is no image to draw it over."""
        try:
            return encode_image(self.plot())
        except BoxelError:
            return None


@contextmanager
def writing_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path for a file; errors name the file itself."""
    try:
        with atomic_path(Path(path)) as file:
            yield file
    except ValueError as error:
        suffix = Path(path).suffix
        raise BoxelError(
            f"{path}: {suffix!r} is not an image format; end the name on .png or .jpg."
        ) from error
    except OSError as error:
        raise not_written(path, error) from error

"""Draw boxes, masks and label maps over their images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.masks.rle import Rle, decode_in_box
from boxel.viz.colors import BLACK, WHITE, Color, contrasting, pick_color
from boxel.viz.config import DrawConfig
from boxel.viz.placement import Coverage, Placer
from boxel.viz.text import clean_text, line_height, shorten, text_mask, write_text

_OPACITY = 0.4
_MAX_WORD = 32  # characters of a name on a label
_MIN_TEXT = 11  # pixels
_TEXT_SHARE = 0.027  # size of text as a share of the shorter side of the image
_MIN_SIDE = 400  # of drawings of datasets, whose smaller images are enlarged
_CROWD_SIDE = 900  # up to which images are enlarged whose labels find no place
_HIDES_ALL, _HIDES_SOME = 0.7, 0.45  # mean weight that a label may cover: a whole one, and a number
_MAX_CHIPS = 0.25  # share of the image that labels may take before they become smaller, then numbers
_CROWD = 30  # objects, whose boxes get thinner lines
_FEW = 3  # labels, which may take more
_FREE_CHIPS = 0.08  # share above which an image is enlarged, and the one that they may take on a thumbnail


class Crop(NamedTuple):
    """A mask within its box: (h, w) uint8 of zeros and ones, and its left upper corner in the image."""

    mask: NDArray[np.uint8]
    x: int
    y: int


@dataclass(frozen=True)
class Objects:
    """Objects of one image, ready to be drawn.

    Attributes:
        boxes: (N, 4) float64 xyxy pixels.
        masks: N codes, (H, W) arrays or crops, or None for an object with only a box.
        colors: N numbers of colors, see :func:`~boxel.viz.colors.pick_color`.
        texts: N labels, empty for an object without one.
        names: What a color stands for, by its number, for the legend.
    """

    boxes: NDArray[np.float64]
    masks: Sequence[Rle | NDArray[np.generic] | Crop | None]
    colors: Sequence[int]
    texts: Sequence[str]
    names: Mapping[int, str] = field(default_factory=dict)

    def crop(self, index: int) -> Crop | None:
        """Return a mask within its box; None if there is none, or it is empty."""
        mask = self.masks[index]
        if mask is None or isinstance(mask, Crop):
            return mask
        if isinstance(mask, dict):
            inside, x, y = decode_in_box(mask)
        else:
            x, y, w, h = (int(value) for value in cv2.boundingRect(np.asarray(mask).astype(np.uint8)))
            inside = np.asarray(mask)[y : y + h, x : x + w].astype(np.uint8)
        return Crop(np.ascontiguousarray(inside), x, y) if inside.size else None


def overlay(
    image: NDArray[np.uint8],
    boxes: ArrayLike,
    masks: Sequence[Rle | None] | NDArray[np.bool_] | None = None,
    labels: ArrayLike | None = None,
    names: Sequence[str] = (),
    scores: ArrayLike | None = None,
    config: DrawConfig | None = None,
) -> NDArray[np.uint8]:
    """Draw instances over their image.

    Lines and text grow with the image. A mask tints its pixels and gets a solid rim inside its edge; the line of a box
    is outside it. A label is put where it hides little, and never on another label: in a crowd it becomes small, then
    the number of its color, which a legend below the image explains. Masks are decoded one at a time.

    Args:
        image: (H, W, 3) uint8 RGB; it is not changed.
        boxes: (N, 4) xyxy pixels.
        masks: N run-length codes of size (H, W), None for an instance that has only a box; or (N, H, W) bool; or None
            if no instance has a mask.
        labels: (N,) int, indices into ``names``. None: no names, and a color per instance.
        names: Names of the classes.
        scores: (N,) in [0, 1], NaN for an instance without one. None: no scores.
        config: How they are drawn; what selects images does nothing here.

    Returns:
        (H, W, 3) uint8 RGB; (H + legend, W, 3) if there is a legend.

    Examples:
        >>> image = np.zeros((40, 60, 3), dtype=np.uint8)
        >>> drawn = overlay(image, [[10, 10, 50, 30]], labels=[0], names=["cat"], scores=[0.9])
        >>> drawn.shape, bool(drawn.any()), bool(image.any())
        ((40, 60, 3), True, False)
    """
    config = config or DrawConfig()
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    words, colors = [""] * len(boxes), list(range(len(boxes)))
    if labels is not None:
        kinds = np.asarray(labels).astype(int).tolist()
        words = [names[label] for label in kinds]
        colors = kinds if config.color_by == "class" else colors
    codes = [None] * len(boxes) if masks is None else list(masks)
    objects = Objects(boxes, codes, colors, make_texts(words, scores), name_colors(colors, words))
    return draw_objects(image, objects, config)


def make_texts(words: Sequence[str], scores: ArrayLike | None) -> list[str]:
    """Return the label of each object: its name, its score, both or none."""
    numbers = [""] * len(words)
    if scores is not None:
        numbers = ["" if np.isnan(score) else f"{score:.2f}" for score in np.asarray(scores)]
    short = [shorten(clean_text(word), _MAX_WORD) for word in words]
    return [f"{word} {number}".strip() for word, number in zip(short, numbers, strict=True)]


def name_colors(colors: Sequence[int], words: Sequence[str]) -> dict[int, str]:
    """Return what each color stands for: the first of the words it goes with."""
    return {color: clean_text(word) for color, word in reversed(list(zip(colors, words, strict=True)))}


def draw_objects(
    image: NDArray[np.uint8],
    objects: Objects,
    config: DrawConfig,
    scale: int | None = 1,
    legend: bool = True,
) -> NDArray[np.uint8]:
    """Draw objects over their image; see :func:`overlay`.

    Without a factor ``scale``, small images are enlarged, and those in which labels find no place. The legend below the
    image explains the numbers that stand for labels.
    """
    height, width = image.shape[:2]
    boxes = _complete_boxes(objects).clip([-width, -height] * 2, [2 * width, 2 * height] * 2)
    max_share = _MAX_CHIPS if legend else _FREE_CHIPS
    scales = _choose_scales(height, width) if scale is None else [scale]
    scale, chips = _lay_out(objects, boxes, (height, width), config, scales, max_share)
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    canvas = np.asarray(resized, dtype=np.uint8)
    boxes = boxes * scale
    thickness = config.line_width or _default_width(canvas.shape[:2])
    order, fill = _order_by_size(boxes)[::-1], config.style == "fill"
    for index in order:  # small ones on top
        crop = objects.crop(index)
        if crop is not None:
            _paint_mask(canvas, crop, scale, pick_color(objects.colors[index]), thickness, fill)
    for index in order if config.boxes else ():
        # A box matters less than its mask, and the lines of a crowd must not hide it.
        thin = objects.masks[index] is not None or len(order) > _CROWD
        width = -(-thickness // 2) if thin and not config.line_width else thickness
        _paint_box(canvas, boxes[index], pick_color(objects.colors[index]), width)
    for chip in chips:
        _paint_chip(canvas, chip, pick_color(objects.colors[chip.index]))
    short = sorted({objects.colors[chip.index] for chip in chips if chip.is_number})
    if not short or not legend:
        return canvas
    entries = [(f"{color} {objects.names.get(color, '')}".strip(), pick_color(color)) for color in short]
    return np.concatenate([canvas, draw_legend(canvas.shape[1], entries, max(chip.size for chip in chips))])


def _complete_boxes(objects: Objects) -> NDArray[np.float64]:
    """Return the boxes; one that is not finite is that of its mask, or outside the image."""
    boxes = objects.boxes.copy()
    for index in np.flatnonzero(~np.isfinite(boxes).all(axis=1)).tolist():
        crop = objects.crop(index)
        boxes[index] = -2.0
        if crop is not None:
            boxes[index] = crop.x, crop.y, crop.x + crop.mask.shape[1], crop.y + crop.mask.shape[0]
    return boxes


def _order_by_size(boxes: NDArray[np.float64]) -> list[int]:
    """Return the indices of (N, 4) xyxy boxes, the smallest first."""
    return np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argsort(kind="stable").tolist()


def text_size(shape: Sequence[int]) -> int:
    """Return the size of text, in pixels, for an image of (height, width)."""
    return max(_MIN_TEXT + 1, round(_TEXT_SHARE * _side(shape)))


def _side(shape: Sequence[int]) -> float:
    """Return the shorter side of an image of (height, width); of a long one, that of an image of 4:3 of its area."""
    return float(min((0.75 * shape[0] * shape[1]) ** 0.5, 1.6 * min(shape)))


def _default_width(shape: Sequence[int]) -> int:
    """Return the width of lines, in pixels, for an image of (height, width)."""
    return max(1, round(_side(shape) / 260))


# ---------------------------------------------------------------- labels


@dataclass(frozen=True)
class _Chip:
    """A label at its place: the index of its object, and its left upper corner."""

    index: int
    text: str
    size: int
    x: int
    y: int
    is_number: bool = False


def _chip_size(text: str, size: int) -> tuple[int, int]:
    return text_mask(text, size).shape[1] + 2 * _padding(size), line_height(size) + 2 * (_padding(size) // 2)


def _padding(size: int) -> int:
    return max(2, round(size / 4))


def _choose_scales(height: int, width: int) -> list[int]:
    """Return by how much an image is enlarged for its own sake, and, if that is more, in a crowd."""
    shorter, longer = sorted((height, width))
    return sorted({max(1, min(-(-side // shorter), 4 * side // longer)) for side in (_MIN_SIDE, _CROWD_SIDE)})


def _lay_out(
    objects: Objects,
    boxes: NDArray[np.float64],
    shape: tuple[int, int],
    config: DrawConfig,
    scales: Sequence[int],
    max_share: float,
) -> tuple[int, list[_Chip]]:
    """Choose by how much an image is enlarged, and place its labels."""
    inside = np.all(boxes[:, 2:] >= 0, axis=1) & np.all(boxes[:, :2] <= shape[::-1], axis=1)
    shown = {k for k, text in enumerate(objects.texts) if text and inside[k]}
    if not shown or not config.labels:
        return scales[0], []
    coverage = Coverage(*shape)
    for index, box in enumerate(boxes):
        if crop := objects.crop(index):
            coverage.add_mask(*crop)
        else:
            coverage.add_box(box)
    coverage.integrate()
    for scale in scales:
        placer = Placer(coverage, shape[1] * scale, shape[0] * scale, scale)
        chips = _place_all(objects, boxes * scale, shown, placer, config, max_share)
        area = sum(np.prod(_chip_size(chip.text, chip.size)) for chip in chips)
        is_free = area <= _FREE_CHIPS * placer.width * placer.height
        if is_free and len(chips) == len(shown) and not any(chip.is_number for chip in chips):
            break
    return scale, chips


def _place_all(
    objects: Objects,
    boxes: NDArray[np.float64],
    shown: set[int],
    placer: Placer,
    config: DrawConfig,
    max_share: float,
) -> list[_Chip]:
    """Place labels in the largest text in which all find a place; else in the smallest, and numbers for the rest."""
    largest = text_size((placer.width, placer.height))
    smallest = max(_MIN_TEXT, round(largest / 2.2))
    gap = config.line_width or _default_width((placer.width, placer.height))
    corners = boxes.clip(0, [placer.width, placer.height] * 2)
    order = [k for k in _order_by_size(corners) if k in shown]  # the fewest places are those of small boxes
    sizes = sorted({largest, round((largest * smallest) ** 0.5), smallest}, reverse=True)
    chips: list[_Chip] = []
    for size in sizes:
        areas = [np.prod(_chip_size(objects.texts[k], size)) for k in order]
        if len(areas) > _FEW and sum(areas) > max_share * placer.width * placer.height:
            continue
        placer.taken.clear()
        chips = _place(placer, corners, {k: objects.texts[k] for k in order}, size, gap, _HIDES_ALL)
        if len(chips) == len(order):
            return chips
    placed = {chip.index for chip in chips}
    numbers = {k: str(objects.colors[k]) for k in order if k not in placed}
    return chips + _place(placer, corners, numbers, smallest, gap, _HIDES_SOME, are_numbers=True)


def _place(
    placer: Placer,
    corners: NDArray[np.float64],
    texts: Mapping[int, str],
    size: int,
    gap: int,
    limit: float,
    are_numbers: bool = False,
) -> list[_Chip]:
    chips = []
    for index, text in texts.items():
        place = placer.place(corners[index], _chip_size(text, size), gap, limit)
        if place is not None:
            chips.append(_Chip(index, text, size, *place, are_numbers))
    return chips


def _paint_chip(canvas: NDArray[np.uint8], chip: _Chip, color: Color) -> None:
    w, h = _chip_size(chip.text, chip.size)
    canvas[chip.y : chip.y + h, chip.x : chip.x + w] = color
    padding = _padding(chip.size)
    write_text(canvas, chip.text, chip.x + padding, chip.y + padding // 2, chip.size, contrasting(color))


# ---------------------------------------------------------------- masks and boxes


def _paint_mask(
    canvas: NDArray[np.uint8], crop: Crop, scale: int, color: Color, thickness: int, fill: bool
) -> None:
    """Blend a color into the pixels of a mask that is enlarged by ``scale``, in place, and paint its rim inside it."""
    inside, x, y = crop
    h, w = inside.shape
    if scale > 1:  # with smooth edges
        padded = cv2.resize(np.pad(inside, 1) * np.uint8(255), None, fx=scale, fy=scale)
        inside = (padded[scale:-scale, scale:-scale] > 127).astype(np.uint8)
    region = canvas[y * scale : (y + h) * scale, x * scale : (x + w) * scale]
    thickness = min(thickness, max(1, scale * min(w, h) // 8))  # a small object is not all rim
    kernel = np.ones((2 * thickness + 1, 2 * thickness + 1), dtype=np.uint8)
    core = cv2.erode(inside, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if fill:
        cv2.copyTo(cv2.LUT(region, _tint_table(color)), inside, region)
    region[inside > core] = color


@cache
def _tint_table(color: Color) -> NDArray[np.uint8]:
    """Return what each value of a pixel becomes in each channel if it is blended with a color, (256, 1, 3)."""
    values = np.arange(256, dtype=np.uint8)[:, None, None].repeat(3, axis=2)
    return np.asarray(cv2.addWeighted(values, 1 - _OPACITY, np.full_like(values, color), _OPACITY, 0))


def _paint_box(canvas: NDArray[np.uint8], box: NDArray[np.float64], color: Color, thickness: int) -> None:
    """Draw a box in place, with lines outside it as far as there is room."""
    height, width = canvas.shape[:2]
    x0, y0 = np.floor(box[:2]).astype(int).tolist()
    x1, y1 = np.ceil(box[2:]).astype(int).tolist()
    if x0 >= width or y0 >= height or x1 < 0 or y1 < 0:
        return
    thickness = min(thickness, max(1, min(x1 - x0, y1 - y0) // 4))
    # A line at the border of the image is moved into it.
    left, top = max(x0 - thickness, 0), max(y0 - thickness, 0)
    right, bottom = min(x1 + thickness, width), min(y1 + thickness, height)
    canvas[top : top + thickness, left:right] = color
    canvas[max(bottom - thickness, 0) : bottom, left:right] = color
    canvas[top:bottom, left : left + thickness] = color
    canvas[top:bottom, max(right - thickness, 0) : right] = color


# ---------------------------------------------------------------- label maps


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
        (40, 60, 3)
    """
    shown = [k for k in np.unique(labels).tolist() if 0 <= k < len(names) and names[k] != "background"]
    canvas = image.astype(np.float64)
    for k in shown:
        canvas[labels == k] = canvas[labels == k] * (1 - _OPACITY) + np.array(pick_color(k)) * _OPACITY
    # The outline separates a class from pixels of a similar color, e.g. dark green from grass.
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    edges = cv2.morphologyEx(labels.astype(np.uint8), cv2.MORPH_GRADIENT, cross) > 0
    canvas[edges & np.isin(labels, shown)] = 255
    entries = [(clean_text(names[k]), pick_color(k)) for k in shown]
    legend = draw_legend(image.shape[1], entries, text_size(image.shape[:2]))
    return np.concatenate([np.round(canvas).astype(np.uint8), legend])


def draw_legend(width: int, entries: Iterable[tuple[str, Color]], size: int) -> NDArray[np.uint8]:
    """Draw texts beside their colors on white, in as many rows as needed: (h, width, 3) uint8."""
    line, square, margin = line_height(size) + size // 3, size, max(3, size // 3)
    places: list[tuple[str, Color, int, int]] = []
    x, y = margin, 0
    for text, color in entries:
        length = square + margin + text_mask(text, size).shape[1] + 2 * margin if text else square + margin
        x, y = (margin, y + line) if x > margin and x + length > width else (x, y)
        places.append((text, color, x, y))
        x += length
    strip = np.full((y + line if places else 0, width, 3), WHITE, dtype=np.uint8)
    for text, color, x, y in places:
        top = y + (line - square) // 2
        strip[top : top + square, x : x + square] = color
        if text:
            write_text(strip, text, x + square + margin, y + (line - line_height(size)) // 2, size, BLACK)
    return strip

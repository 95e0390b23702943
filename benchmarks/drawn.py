"""Images drawn for training, each with one mask that is exact.

They show what photos with masks show too rarely: cracks, wires, roots and branches; stains and defects of low contrast;
objects that hide each other; many alike that touch; things that are transparent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Random = np.random.Generator


@dataclass(frozen=True)
class Drawing:
    """An image with the mask of one object.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, 1 on the object.
        others: (K, 4) xyxy boxes of the other objects.
    """

    image: Image
    mask: Mask
    others: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 4)))

    @property
    def box(self) -> NDArray[np.float64]:
        """The tight (4,) xyxy box of the mask."""
        return tight_box(self.mask)


@dataclass(frozen=True)
class Source:
    """Where drawings take photos and objects from.

    Attributes:
        photo: Returns a random image to draw on.
        cutout: Returns the pixels (h, w, 3) and the mask (h, w) of a random object.
    """

    photo: Callable[[Random], Image]
    cutout: Callable[[Random], tuple[Image, Mask]]


def draw_thin(rng: Random, source: Source) -> Drawing:
    """Draw a crack, a wire, a root or a branch on an image or on a rough surface."""
    image = source.photo(rng)
    if rng.random() < 0.5:
        image = _roughen(rng, image, noise=(2, 14))
    mask = _lines(rng, image.shape[:2])
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.4, 1.1))[..., None]
    soft = np.clip(soft * rng.uniform(0.8, 1.6), 0, 1) * rng.uniform(0.45, 1)
    below = image[mask > 0].mean(axis=0)
    color = below * rng.uniform(0.1, 0.75) if rng.random() < 0.6 else rng.uniform(0, 255, 3)
    paint = color + rng.normal(0, rng.uniform(0, 18), image.shape)
    return Drawing(_mix(image, paint, soft), mask)


def draw_stain(rng: Random, source: Source) -> Drawing:
    """Draw a stain, a defect or a hole, often of low contrast, on an image or on a rough surface."""
    image = source.photo(rng)
    if rng.random() < 0.6:
        if rng.random() < 0.5:
            image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
        image = _roughen(rng, image, noise=(2, 16))
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    while mask.sum() < 120:
        mask[:] = 0
        h, w = int(rng.uniform(0.12, 0.8) * height), int(rng.uniform(0.12, 0.8) * width)
        _place(mask, _blob(rng, h, w), int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)))
    if rng.random() < 0.35:
        paint = 0.7 * _texture(rng, source, height, width) + 0.3 * image[mask > 0].mean(axis=0)
    else:
        darker = rng.random() < 0.6
        paint = image * (rng.uniform(0.35, 0.85) if darker else rng.uniform(1.15, 1.8)) + rng.uniform(
            -25, 25, 3
        )
        if rng.random() < 0.4:
            paint = paint + rng.normal(0, rng.uniform(4, 30), image.shape)
    return Drawing(_blend(rng, image, mask, paint, opacity=0.5), mask)


def draw_pasted(rng: Random, source: Source) -> Drawing:
    """Paste one to three objects on an image, often one over another; any that is still visible is wanted."""
    image = source.photo(rng)
    height, width = image.shape[:2]
    masks: list[Mask] = []
    for _ in range(int(rng.integers(1, 4))):
        pixels, shape = source.cutout(rng)
        if rng.random() < 0.3:
            pixels, shape = np.rot90(pixels), np.rot90(shape)
        scale = rng.uniform(0.2, 0.75) * min(height / shape.shape[0], width / shape.shape[1])
        pixels, shape = _resize(pixels, shape, scale)
        h, w = shape.shape
        y, x = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        if masks and rng.random() < 0.6:  # over the object before
            left, top, right, bottom = tight_box(masks[-1])
            x = int(np.clip(rng.uniform(left, right) - w / 2, 0, width - w))
            y = int(np.clip(rng.uniform(top, bottom) - h / 2, 0, height - h))
        image, masks = _put(rng, image, masks, pixels * rng.uniform(0.6, 1.25), shape, y, x)
    visible = [mask for mask in masks if mask.sum() > 200] or masks[-1:]
    return _choose(rng, image, visible, visible)


def draw_crowd(rng: Random, source: Source) -> Drawing:
    """Draw many objects that are alike and touch each other; one is wanted."""
    image = source.photo(rng)
    height, width = image.shape[:2]
    size = int(rng.uniform(0.1, 0.3) * min(height, width))
    if rng.random() < 0.5:
        pixels, shape = source.cutout(rng)
        pixels, shape = _resize(pixels, shape, size / max(shape.shape))
    else:
        pixels, shape = _texture(rng, source, size, size), _blob(rng, size, size)
    if shape.sum() < 60:
        return draw_stain(rng, source)
    masks: list[Mask] = []
    center = rng.uniform(0.3, 0.7, 2) * (height, width)
    for _ in range(int(rng.integers(4, 16))):
        turns = int(rng.integers(4))
        turned = np.rot90(shape, turns)
        room = np.array([height, width]) - turned.shape
        y, x = rng.normal(center, 1.1 * size).clip(0, room).astype(int)
        image, masks = _put(
            rng, image, masks, np.rot90(pixels, turns) * rng.uniform(0.75, 1.15), turned, y, x
        )
    whole = [mask for mask in masks if mask.sum() > 0.35 * shape.sum()]
    return _choose(rng, image, whole, [mask for mask in masks if mask.sum() > 40])


def draw_clear(rng: Random, source: Source) -> Drawing:
    """Draw transparent objects: a rim around what looks like the background, as of droplets, cells and drawings."""
    image = source.photo(rng)
    height, width = image.shape[:2]
    if rng.random() < 0.75:
        if rng.random() < 0.5:  # hardly any contrast
            mean = image.mean(axis=(0, 1))
            image = (mean + (image - mean) * rng.uniform(0.05, 0.6)).astype(np.uint8)
        image = _roughen(rng, image, noise=(1, 8))
    size, alike, step = rng.uniform(0.12, 0.7) * min(height, width), rng.random() < 0.6, rng.uniform(0.9, 1.3)
    rim = rng.uniform(0.015, 0.12) * size
    tone = rng.uniform(-110, 110, 3) if rng.random() < 0.3 else rng.choice([-1, -1, 1]) * rng.uniform(15, 120)
    tint, ratio, kind = rng.uniform(-1, 1, 3) * rng.uniform(0, 25), rng.uniform(0.6, 1), rng.random()
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, [2 * max(1, int(rim / 2)) + 1] * 2)
    center, masks = rng.uniform(0.3, 0.7, 2) * (height, width), []
    for count in range(int(rng.integers(1, 7))):
        extent = size * (rng.uniform(0.9, 1.1) if alike else rng.uniform(0.4, 1))
        shape = _outlined(rng, max(12, int(extent * ratio)), max(12, int(extent)), kind)
        angle = rng.uniform(0, 2 * math.pi)
        middle = center + bool(count) * step * size * np.array([math.sin(angle), math.cos(angle)])
        room = np.array([height, width]) - shape.shape
        full = np.zeros((height, width), np.uint8)
        y, x = (middle - np.array(shape.shape) / 2).clip(0, room).astype(int)
        _place(full, shape, y, x)
        if full.sum() < 80 or any((full & mask).sum() > 0.25 * full.sum() for mask in masks):
            continue
        outside = full if rng.random() < 0.6 else cv2.dilate(full, kernel)
        ring = outside & (1 - cv2.erode(full, kernel))
        inside = np.roll(image, int(size / 3), axis=1) if rng.random() < 0.2 else image  # as a lens shows it
        image = _blend(rng, image, full, inside.astype(np.float32) + tint, opacity=0.7)
        image = _blend(rng, image, ring, image.astype(np.float32) + tone, opacity=0.6)
        if rng.random() < 0.25:
            spot = np.zeros((height, width), np.uint8)
            corner = (int(x + shape.shape[1] // 3), int(y + shape.shape[0] // 3))
            cv2.circle(spot, corner, max(1, int(size * 0.06)), 1, cv2.FILLED)
            image = _blend(rng, image, spot, np.full(image.shape, 255.0), opacity=0.6)
        masks.append(full)
    return _choose(rng, image, masks, masks) if masks else draw_stain(rng, source)


KINDS = {
    "thin": draw_thin,
    "stain": draw_stain,
    "pasted": draw_pasted,
    "crowd": draw_crowd,
    "clear": draw_clear,
}
"""Functions that make a drawing, by name."""


def tight_box(mask: Mask) -> NDArray[np.float64]:
    """Return the (4,) xyxy box of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=float)


def _lines(rng: Random, size: tuple[int, int]) -> Mask:
    """Draw a bent line, or several, with or without branches."""
    height, width = size
    mask = np.zeros(size, np.uint8)
    while mask.sum() <= 60:
        branches = int(rng.choice([2, 0, 3, 0]))
        thickness = rng.uniform(1, rng.choice([4, 9, 5, 7]))
        for _ in range(1 if branches else int(rng.integers(1, 4))):
            start = rng.uniform(0.1, 0.9, 2) * (width, height)
            length = min(size) * rng.uniform(0.4, 1.3)
            _walk(rng, mask, start, rng.uniform(0, 2 * math.pi), length, thickness, branches)
    return mask


def _walk(
    rng: Random,
    mask: Mask,
    start: NDArray[np.float64],
    angle: float,
    length: float,
    thickness: float,
    branches: int,
) -> None:
    """Draw a line that bends at random, and lines that branch off, into a mask."""
    bend, step = rng.uniform(0.02, 0.35), max(2.0, length / 40)
    points = [start]
    for _ in range(int(length / step)):
        angle += rng.normal(0, bend)
        points.append(points[-1] + step * np.array([math.cos(angle), math.sin(angle)]))
        if branches and rng.random() < 0.05 * branches:
            aside = angle + rng.choice([-1, 1]) * rng.uniform(0.3, 1.2)
            thinner = max(1.0, thickness * rng.uniform(0.5, 1))
            _walk(rng, mask, points[-1], aside, length * rng.uniform(0.2, 0.6), thinner, branches - 1)
    corners = np.round(np.array(points) * 16).astype(np.int32).reshape(-1, 1, 2)  # in sixteenths of a pixel
    cv2.polylines(mask, [corners], False, 1, max(1, round(thickness)), cv2.LINE_8, shift=4)


def _blob(rng: Random, height: int, width: int) -> Mask:
    """Draw a smooth or ragged shape, mostly in one piece: an ellipse whose outline is disturbed by noise."""
    side = 64
    noise = cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), rng.uniform(2, 9))
    noise /= noise.std() + 1e-6
    if rng.random() < 0.5:
        noise += rng.uniform(0, 1.25) * cv2.GaussianBlur(rng.normal(0, 1, (side, side)), (0, 0), 1.2)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    angle, ratio = rng.uniform(0, math.pi), rng.uniform(0.35, 1)
    u = x * math.cos(angle) + y * math.sin(angle)
    v = (-x * math.sin(angle) + y * math.cos(angle)) / ratio
    field_ = rng.uniform(0.8, 2.5) * (0.65 - np.hypot(u, v)) + rng.uniform(0.05, 0.45) * noise
    mask = (cv2.resize(field_, (width, height), interpolation=cv2.INTER_CUBIC) > 0).astype(np.uint8)
    if rng.random() < 0.8:
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
        if count > 1:
            mask = (labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
    return mask


def _outlined(rng: Random, height: int, width: int, kind: float) -> Mask:
    """Draw an ellipse, a blob or a polygon, by a number in [0, 1)."""
    if kind >= 0.6 and rng.random() < 0.5:
        height, width = width, height
    if 0.6 <= kind < 0.85:
        return _blob(rng, height, width)
    shape, middle = np.zeros((height, width), np.uint8), (width // 2, height // 2)
    radii = (middle[0] - 1, middle[1] - 1)
    if kind < 0.6:
        return cv2.ellipse(shape, middle, radii, 0, 0, 360, 1, cv2.FILLED)
    angles = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(4, 8))))
    corners = np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii + middle
    return cv2.fillPoly(shape, [corners.astype(np.int32)], 1)


def _texture(rng: Random, source: Source, height: int, width: int) -> NDArray[np.float32]:
    """Return a part of a photo, resized, or a plain color."""
    if rng.random() < 0.3:
        return np.full((height, width, 3), rng.uniform(0, 255, 3), np.float32)
    photo = source.photo(rng)
    share, (rows, columns) = rng.uniform(0.15, 0.6), photo.shape[:2]
    y, x = int(rng.uniform(0, 1 - share) * rows), int(rng.uniform(0, 1 - share) * columns)
    part = photo[y : y + max(4, int(share * rows)), x : x + max(4, int(share * columns))]
    return cv2.resize(part, (width, height)).astype(np.float32)


def _roughen(rng: Random, image: Image, noise: tuple[float, float]) -> Image:
    """Blur an image to the background of a road or a wall, and add grain."""
    side = int(rng.choice([9, 21, 41]))
    smooth = cv2.GaussianBlur(image, (side, side), 0)
    return np.clip(smooth + rng.normal(0, rng.uniform(*noise), image.shape), 0, 255).astype(np.uint8)


def _resize(pixels: NDArray, shape: Mask, scale: float) -> tuple[NDArray, Mask]:
    size = (max(8, int(shape.shape[1] * scale)), max(8, int(shape.shape[0] * scale)))
    small = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
    return small, cv2.resize(np.ascontiguousarray(shape), size, interpolation=cv2.INTER_NEAREST)


def _put(
    rng: Random, image: Image, masks: list[Mask], pixels: NDArray, shape: Mask, y: int, x: int
) -> tuple[Image, list[Mask]]:
    """Paint an object over an image; the objects before lose the pixels that it covers."""
    full, paint = np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape, np.float32)
    _place(full, shape, y, x)
    _place(paint, pixels, y, x)
    covered = [mask & (1 - full) for mask in masks]
    return _blend(rng, image, full, paint, opacity=0.95), [*covered, full]


def _place(canvas: NDArray, part: NDArray, y: int, x: int) -> None:
    canvas[y : y + part.shape[0], x : x + part.shape[1]] = part


def _choose(rng: Random, image: Image, wanted: list[Mask], masks: list[Mask]) -> Drawing:
    """Choose one object as the wanted one; the rest are the others."""
    mask = wanted[int(rng.integers(len(wanted)))]
    others = [tight_box(other) for other in masks if other is not mask]
    return Drawing(image, mask, np.array(others).reshape(-1, 4))


def _blend(rng: Random, image: Image, mask: Mask, paint: NDArray, opacity: float) -> Image:
    """Paint a mask with a soft edge, with an opacity between the given one and 1."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), rng.uniform(0.4, 1.6))[..., None]
    return _mix(image, paint, soft * rng.uniform(opacity, 1))


def _mix(image: Image, paint: NDArray, weight: NDArray) -> Image:
    return np.clip(image * (1 - weight) + paint * weight, 0, 255).astype(np.uint8)

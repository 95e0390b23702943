"""Generated scenes: textured objects on a mottled background, with exact masks.

They are designed to separate methods. Shapes fill their boxes poorly (a hole, thin parts, concave outlines), objects
overlap, and an object has the colors of the background around it and of the other objects, so that color models of
inside and outside do not find it. Across an outline the color does change, as in real images; the other cues are the
object's shape, its relief and the shade along its outline.
"""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats import write_as_given
from boxel.data.formats.builder import Builder
from boxel.masks.boxes import tight_boxes
from boxel.masks.rle import encode

Field: TypeAlias = NDArray[Any]
"""(h, w) float32, one number per pixel, or (h, w, 3), one color per pixel."""


class SceneObject(NamedTuple):
    """An object of a scene.

    Attributes:
        label: Index into `CLASSES`.
        box: (4,) float64, xyxy pixels, tight around the mask.
        mask: (H, W) bool, the visible pixels of the object.
    """

    label: int
    box: NDArray[np.float64]
    mask: NDArray[np.bool_]


# Outlines: approximate signed distance to the outline, negative inside, of points in an object's frame, which spans
# -1 to 1.


def _ring(x: Field, y: Field) -> Field:
    return np.abs(np.hypot(x, y) - 0.68) - 0.3


def _star(x: Field, y: Field) -> Field:
    spoke = np.abs((np.arctan2(y, x) * 5 / (2 * np.pi)) % 1 - 0.5)  # 0.5 along a ray, 0 between two
    return (np.hypot(x, y) - (0.42 + 1.16 * spoke)) * 0.6


def _cross(x: Field, y: Field) -> Field:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 0.3, y - 0.98), np.maximum(x - 0.98, y - 0.3))


def _crescent(x: Field, y: Field) -> Field:
    return np.maximum(np.hypot(x, y) - 0.98, 0.68 - np.hypot(x - 0.5, y))


def _spoon(x: Field, y: Field) -> Field:
    handle = np.maximum(np.abs(y) - 0.14, np.abs(x - 0.3) - 0.68)
    return np.minimum(np.hypot(x + 0.48, y) - 0.5, handle)


# Reliefs in about -1..1, of points in pixels. They repeat every 4 pixels, so that colors averaged over 4 x 4 pixels
# hardly show them.

_PITCH = np.pi / 2


def _stripes(x: Field, y: Field) -> Field:
    return np.sin(_PITCH * x)


def _dots(x: Field, y: Field) -> Field:
    return 1.4 * np.sin(_PITCH * x) * np.sin(_PITCH * y)


def _weave(x: Field, y: Field) -> Field:
    return 1.4 * np.maximum(np.sin(_PITCH * x), np.sin(_PITCH * y)) - 0.5


_STYLES: dict[str, tuple[Callable[[Field, Field], Field], Callable[[Field, Field], Field]]] = {
    "ring": (_ring, _stripes),
    "star": (_star, _dots),
    "cross": (_cross, _weave),
    "crescent": (_crescent, _stripes),
    "spoon": (_spoon, _dots),
}

CLASSES = tuple(_STYLES)
"""Names of the classes by label."""

_MIN_VISIBLE = 0.75
"""Minimum share of an object's part in the image that other objects leave uncovered."""

_MIN_PIXELS = 100
"""Smaller objects are not placed."""


def make_scene(
    seed: int, index: int, height: int = 192, width: int = 256
) -> tuple[NDArray[np.uint8], list[SceneObject]]:
    """Generate one scene; the same arguments give the same scene.

    Args:
        seed: Seed of the whole dataset.
        index: Index of the scene in the dataset.
        height: Pixels.
        width: Pixels.

    Returns:
        The (H, W, 3) uint8 RGB image and its one to five objects, back to front. Every object of the image is in the
        list, with at least 75 % of its part in the image uncovered.

    Examples:
        >>> image, objects = make_scene(seed=0, index=0)
        >>> image.shape, objects[0].mask.shape
        ((192, 256, 3), (192, 256))
    """
    rng = np.random.default_rng((seed, index))
    palette = _palette(rng)
    image = _background(rng, palette, height, width)
    owner = np.full((height, width), -1)
    labels: list[int] = []
    areas: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
    wanted = rng.integers(2, 6)
    for _ in range(4 * wanted):
        label = int(rng.integers(len(CLASSES)))
        outline, relief = _STYLES[CLASSES[label]]
        place, x, y, radius = _pose(rng, height, width)
        inside = radius * (0.06 * _noise(rng, 4, *x.shape) - outline(x / radius, y / radius))
        owner_after = owner.copy()
        owner_after[place][inside > 0] = len(labels)
        areas_after = np.append(areas, (inside > 0).sum())
        seen = np.bincount(owner_after[owner_after >= 0], minlength=len(areas_after))
        if areas_after[-1] < _MIN_PIXELS or (seen < _MIN_VISIBLE * areas_after).any():
            continue
        owner, areas = owner_after, areas_after
        labels.append(label)
        alpha = np.clip(inside + 0.5, 0, 1)[..., None]
        image[place] += alpha * (_surface(rng, palette, relief(x, y), inside) - image[place])
        if len(labels) == wanted:
            break
    image += rng.standard_normal(image.shape, dtype=np.float32) * 3
    masks = [owner == k for k in range(len(labels))]
    instances = list(map(SceneObject, labels, tight_boxes(masks), masks))
    return np.clip(image, 0, 255).astype(np.uint8), instances


def write_scenes(
    folder: str | Path, count: int, seed: int = 0, height: int = 192, width: int = 256
) -> Annotations:
    """Write scenes 0 to `count` - 1 as a COCO dataset.

    Writes `images/*.png`, `masks.json`, and `boxes.json`, the same without masks.

    Args:
        folder: Created if needed.
        count: Number of scenes.
        seed: Seed of the whole dataset.
        height: Pixels.
        width: Pixels.

    Returns:
        The dataset with its masks.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     scenes = write_scenes(folder, count=2)
        >>> len(scenes), bool(scenes.has_mask.all())
        (2, True)
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = Builder()
    for index in range(count):
        pixels, objects = make_scene(seed, index, height, width)
        path = f"{index:06d}.png"
        Image.fromarray(pixels).save(folder / "images" / path, compress_level=1)
        image = rows.add_image(index + 1, path, width, height)
        for label, box, mask in objects:
            rows.add(len(rows.ids) + 1, image, label, box.tolist(), msgspec.json.encode(encode(mask)))
    categories = [Category(k, name) for k, name in enumerate(CLASSES, start=1)]
    data = rows.build(folder / "images", categories, folder / "masks.json")
    write_as_given(data, folder / "masks.json")
    write_as_given(data.without_masks(), folder / "boxes.json")
    return data


def example_scenes(count: int = 1) -> Annotations:
    """Write scenes of 64 x 96 pixels into a temporary folder, which is deleted when Python exits.

    Args:
        count: Number of scenes.

    Returns:
        The dataset with its masks.

    Examples:
        >>> example_scenes().image_size(0)
        (96, 64)
    """
    folder = tempfile.TemporaryDirectory(prefix="boxel-")
    atexit.register(folder.cleanup)
    return write_scenes(folder.name, count, height=64, width=96)


def _pose(
    rng: np.random.Generator, height: int, width: int
) -> tuple[tuple[slice, slice], Field, Field, float]:
    """Draw the pose of an object: rows and columns, x and y there in its own rotated frame, radius; in pixels."""
    radius = min(height, width) * rng.uniform(0.12, 0.38)
    cx, cy = (rng.uniform(0.7 * radius, side - 0.7 * radius) for side in (width, height))
    columns = slice(max(int(cx - radius) - 2, 0), min(int(cx + radius) + 3, width))
    rows = slice(max(int(cy - radius) - 2, 0), min(int(cy + radius) + 3, height))
    across = np.arange(columns.start, columns.stop) - cx
    down = np.arange(rows.start, rows.stop)[:, None] - cy
    turn = rng.uniform(0, 2 * np.pi)
    x = np.cos(turn) * across + np.sin(turn) * down
    y = (np.cos(turn) * down - np.sin(turn) * across) / rng.uniform(0.75, 1)
    return (rows, columns), x.astype(np.float32), y.astype(np.float32), radius


def _palette(rng: np.random.Generator) -> Field:
    """Draw (4, 3) RGB colors in 0..255, of hues spread evenly from a random one."""
    hue = (rng.uniform(0, 360) + np.arange(4) * 90.0 + rng.uniform(-20, 20, 4)) % 360
    hsv = np.stack([hue, rng.uniform(0.25, 0.55, 4), rng.uniform(0.5, 0.8, 4)], axis=1)
    return cv2.cvtColor(hsv[None].astype(np.float32), cv2.COLOR_HSV2RGB)[0] * 255


def _noise(rng: np.random.Generator, cells: int, height: int, width: int) -> Field:
    """Draw (height, width) smooth noise of about `cells` bumps across, in about -1..1."""
    coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _colors(rng: np.random.Generator, palette: Field, cells: int, height: int, width: int) -> Field:
    """Draw (height, width, 3) patches of the palette's colors that blend into each other."""
    weights = np.exp(3 * np.stack([_noise(rng, cells, height, width) for _ in palette], axis=-1))
    return weights @ palette / weights.sum(axis=-1, keepdims=True)


def _background(rng: np.random.Generator, palette: Field, height: int, width: int) -> Field:
    """Draw the (height, width, 3) colors behind the objects: patches, unevenly lit."""
    light = 1 + 0.15 * _noise(rng, 4, height, width)
    return _colors(rng, palette, 3, height, width) * light[..., None]


def _surface(rng: np.random.Generator, palette: Field, relief: Field, inside: Field) -> Field:
    """Draw the (h, w, 3) colors of an object: patches as in the background, under a relief, dark along the outline."""
    light = 0.95 + 0.15 * relief - 0.25 * np.exp(-np.maximum(inside, 0) / 3)
    return _colors(rng, palette, 2, *inside.shape) * light[..., None]

"""What a click and its surroundings tell of each pixel: distances in the image, distances along colors, and colors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from boxel.masks.boxes import Region, pixel_region

DISC = 0.03
"""Radius of what belongs to a click in any case, relative to the size of the box."""

_MAX_SIDE = 224  # longer side, in pixels, of the copy that a click is decided in; it bounds the time
_MARGIN = 0.15  # of the image around box and click that the copy shows, as a share of their longer side
_CONTRAST = 20.0  # standard deviation of the colors that distances along them are measured with
_BLOCKED = 1e4  # cost of a step out of the pixels that a path may pass
_SWEEPS = 4  # in each direction, when shortest paths are sought
_BINS = 16  # of each channel of colors
_EPS = 1e-5  # share of a color that was never seen


class Scene(NamedTuple):
    """A click in a reduced copy of its surroundings; coordinates are pixels of the copy.

    Attributes:
        window: The part of the image that the copy shows.
        pixels: (h, w, 3) uint8 RGB.
        mask: (h, w) bool.
        box: (4,) xyxy.
        click: Column and row.
        add: Whether the click is on the object.
        kept: Columns and rows of earlier clicks of the other kind.
    """

    window: Region
    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    box: NDArray[np.float64]
    click: tuple[int, int]
    add: bool
    kept: list[tuple[int, int]]

    @property
    def size(self) -> float:
        """Side of the square that is as large as the box."""
        return max(float(np.prod(self.box[2:] - self.box[:2])), 1.0) ** 0.5


def make_scene(
    image: NDArray[np.uint8],
    mask: NDArray[np.bool_],
    box: ArrayLike,
    click: tuple[int, int],
    add: bool,
    fixed: Sequence[tuple[int, int, bool]] = (),
) -> Scene:
    """Reduce the surroundings of a box, enlarged to hold all clicks on the object, and of a click.

    The arguments are those of :func:`~boxel.masks.clicks.correct_by_click`.
    """
    corners = _enclose(box, [(x, y) for x, y, inside in (*fixed, (*click, add)) if inside])
    seen = _enclose(corners, [click])
    margin = _MARGIN * (seen[2:] - seen[:2]).max() + 2
    window = pixel_region(seen + margin * np.array([-1, -1, 1, 1]), *mask.shape)
    scale = min(1.0, _MAX_SIDE / max(window.shape))
    height, width = (max(round(side * scale), 1) for side in window.shape)
    pixels = cv2.resize(image[window.slices], (width, height), interpolation=cv2.INTER_AREA)
    covered = cv2.resize(mask[window.slices].view(np.uint8), (width, height), interpolation=cv2.INTER_AREA)

    def locate(x: int, y: int) -> tuple[int, int]:
        column, row = int((x + 0.5 - window.left) * scale), int((y + 0.5 - window.top) * scale)
        return min(max(column, 0), width - 1), min(max(row, 0), height - 1)

    kept = [locate(x, y) for x, y, inside in fixed if inside != add and (x, y) != tuple(click)]
    small = scale * (corners - np.tile(window[:2], 2))
    return Scene(window, pixels.astype(np.uint8), covered > 0, small, locate(*click), add, kept)


def _enclose(box: ArrayLike, pixels: Sequence[tuple[int, int]]) -> NDArray[np.float64]:
    """Enlarge a box to hold pixels."""
    corners, low = np.array(box, dtype=np.float64), np.array(pixels, dtype=np.float64).reshape(-1, 2)
    return np.concatenate([np.min([corners[:2], *low], axis=0), np.max([corners[2:], *(low + 1)], axis=0)])


def compute_cues(scene: Scene) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Compute what is known of each pixel of a scene.

    Returns:
        (h, w, 14) cues, of which the first is the distance from the click relative to the size of the box, and
        (h, w) bool, the pixels that may change with the click.
    """
    mask, size, add, (x, y) = scene.mask, scene.size, scene.add, scene.click
    columns, rows = np.arange(mask.shape[1]), np.arange(mask.shape[0])[:, None]
    x0, y0, x1, y1 = scene.box - 0.5
    depth_in_box = np.minimum(np.minimum(columns - x0, x1 - columns), np.minimum(rows - y0, y1 - rows))
    inside = depth_in_box >= 0
    from_click = np.hypot(columns - x, rows - y)
    like = mask != add  # the pixels that have the label of the clicked one now
    like[y, x] = True
    from_other = _distance(~like)
    room = float(np.clip(from_other[y, x], 1, size))  # of the click until a pixel of the other label
    near, far = from_click <= max(min(0.7 * room, 0.07 * size), 1.5), from_click > 2 * room

    # What keeps its label: the surroundings of the box or the core of the mask, and earlier clicks.
    depth, earlier = _distance(~mask), np.zeros_like(mask)
    core = ~inside if add else (depth > depth.max() / 2) & far
    candidates = like & (inside | (not add))
    for column, row in scene.kept:
        earlier[row, column] = True
        radius = min(DISC * size, np.hypot(column - x, row - y) / 2)
        candidates &= np.hypot(columns - column, rows - row) > radius
    candidates[y, x] = True

    lab = cv2.cvtColor(scene.pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), 1.0)
    colors = lab * (_CONTRAST / max(lab.std(axis=(0, 1)).max(), 2))
    border = cv2.dilate(like.astype(np.uint8), np.ones((3, 3))).astype(bool) & ~like
    seeds = np.stack([from_click == 0, border, like & (core | earlier) & (from_click > 0)])
    paths = _path_lengths(colors, seeds, like | border)
    cues = [
        from_click / size,
        np.log(from_click / room + 0.1),
        from_other / size,
        np.minimum(_distance(earlier) / size, 2),
        depth_in_box / size,
        *np.log1p(np.minimum(paths, 3000)),
        np.log1p(np.linalg.norm(colors - colors[like & near].mean(axis=0), axis=2)),
        _log_odds(lab, ~like, like & inside),
        _log_odds(lab, like & near, like & far),
        *(np.full(mask.shape, value) for value in (room / size, np.sqrt(mask.sum()) / size, np.log(size))),
    ]
    return np.stack(cues, axis=-1).astype(np.float32), candidates


def _path_lengths(
    colors: NDArray[np.number], seeds: NDArray[np.bool_], passable: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Sum the changes of color along the shortest paths through passable pixels, from (K, h, w) seeds to each pixel.

    Along a row, the cost from one pixel to another is the difference of a cumulative sum, so that a running minimum
    finds the shortest paths in all rows at once.
    """
    lengths = np.where(seeds, 0.0, 1e9)
    costs = [_cumulative_costs(colors, passable), _cumulative_costs(colors.swapaxes(0, 1), passable.T).T]
    for _ in range(_SWEEPS):
        for axis, cost in zip((-1, -2), costs, strict=True):
            lengths = np.minimum(lengths, cost + np.minimum.accumulate(lengths - cost, axis))
            back = np.flip(np.minimum.accumulate(np.flip(lengths + cost, axis), axis), axis)
            lengths = np.minimum(lengths, back - cost)
    return lengths


def _cumulative_costs(colors: NDArray[np.number], passable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum the costs of the steps from the start of each row to each of its pixels."""
    steps = np.linalg.norm(np.diff(colors, axis=1), axis=2)
    steps = np.where(passable[:, 1:] & passable[:, :-1], steps, _BLOCKED)
    return np.pad(np.cumsum(steps, axis=1, dtype=np.float64), ((0, 0), (1, 0)))


def _log_odds(
    lab: NDArray[np.number], some: NDArray[np.bool_], others: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Compare how frequent the color of each pixel is among some pixels and among others."""
    channels = (lab + np.array([0, 128, 128])) / np.array([100, 255, 255]) * _BINS
    bins = np.ravel_multi_index(tuple(np.moveaxis(channels.astype(int), -1, 0)), (_BINS,) * 3, mode="clip")
    logs = []
    for chosen in (some, others):
        counts = np.bincount(bins[chosen], minlength=_BINS**3).reshape((_BINS,) * 3) / max(chosen.sum(), 1)
        for axis in range(3):
            counts = (np.roll(counts, 1, axis) + 2 * counts + np.roll(counts, -1, axis)) / 4
        logs.append(np.log(counts.ravel() + _EPS))
    return (logs[0] - logs[1])[bins]


def _distance(pixels: NDArray[np.bool_]) -> NDArray[np.number]:
    """Compute the distance of each pixel to the nearest of some pixels; 1,000 if there is none."""
    if not pixels.any():
        return np.full(pixels.shape, 1e3, dtype=np.float32)
    return cv2.distanceTransform((~pixels).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)

"""Tiles of a large image: where they lie, and how their detections become those of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.masks.boxes import Region
from boxel.masks.rle import Rle, decode_in_box, encode_in_box

OVERLAP = 0.25
"""Minimum overlap of neighboring tiles, as a share of a tile: objects up to this size are whole in one of them."""

MIN_MATCH = 0.5
"""IoU in the pixels that two tiles share from which two detections are one object, and the share of a part's pixels."""

_EDGE = 0.01  # distance from an inner border, as a share of the tile, up to which an object counts as cut


class TileMasks(NamedTuple):
    """Detections in one tile, or in the whole image."""

    boxes: NDArray[np.float32]  # (N, 4) xyxy pixels of the tile
    scores: NDArray[np.float32]  # (N,)
    labels: NDArray[np.int64]  # (N,)
    rles: list[Rle]  # N, of the tile's size


def cut_tiles(height: int, width: int, side: int, overlap: float = OVERLAP) -> list[Region]:
    """Cut an image into overlapping squares, evenly spaced, from the top left to the bottom right.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        side: Side of a tile in pixels; a tile is smaller only if the image is.
        overlap: Minimum overlap of neighbors, as a share of `side`.

    Examples:
        >>> cut_tiles(100, 175, side=100, overlap=0.25)
        [Region(left=0, top=0, right=100, bottom=100), Region(left=75, top=0, right=175, bottom=100)]
    """
    tops, lefts = (_starts(length, side, overlap) for length in (height, width))
    return [Region(x, y, min(x + side, width), min(y + side, height)) for y in tops for x in lefts]


def tile_core(tile: Region, tiles: Sequence[Region]) -> Region:
    """Return the part of a tile that lies deeper in it than in its neighbors; the cores of all tiles fill the image.

    Examples:
        >>> tiles = cut_tiles(100, 175, side=100)
        >>> tile_core(tiles[1], tiles)
        Region(left=87, top=0, right=175, bottom=100)
    """
    left, right = _core(tile.left, tile.right, {(other.left, other.right) for other in tiles})
    top, bottom = _core(tile.top, tile.bottom, {(other.top, other.bottom) for other in tiles})
    return Region(left, top, right, bottom)


def merge_tiles(
    tiles: Sequence[Region],
    found: Sequence[TileMasks],
    height: int,
    width: int,
    class_agnostic: bool = False,
) -> TileMasks:
    """Merge the detections of overlapping tiles, so that each object is detected once, and whole.

    1. Two detections of one class in two tiles are one object if their masks have an IoU of `MIN_MATCH` or more in the
       pixels that both tiles show. The best pairs come first, and an object has at most one detection per tile.
    2. A detection that is alone, and cut by an inner border, belongs to the detection that covers most of it, if this
       is `MIN_MATCH` or more of what both tiles show of it.
    3. An object is its best detection that no inner border cuts. If all are cut, it is the union of their masks with
       the best of their scores.

    Args:
        tiles: T overlapping rectangles of the image.
        found: The detections in each.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        class_agnostic: Detections of different classes may be one object.

    Returns:
        The objects in pixels of the image, best first.

    Examples:
        >>> box, rle = np.array([[60, 0, 100, 9]]), encode_in_box(np.ones((9, 40)), 60, 0, 100, 100)
        >>> one = TileMasks(box, np.array([0.9]), np.array([0]), [rle])
        >>> rle = encode_in_box(np.ones((9, 45)), 0, 0, 100, 100)
        >>> other = TileMasks(np.array([[0, 0, 45, 9]]), np.array([0.7]), np.array([0]), [rle])
        >>> merge_tiles(cut_tiles(100, 175, side=100), [one, other], 100, 175).boxes.tolist()
        [[60.0, 0.0, 120.0, 9.0]]
    """
    every = _Detections(tiles, found, (height, width), class_agnostic)
    matches, covers = [], []
    for i, j, shared, own, others in every.pairs():
        matches.append((shared / (own + others - shared), i, j))
        covers += [(shared / own, i, j)] if every.cut[i] else []
        covers += [(shared / others, j, i)] if every.cut[j] else []
    objects = [every.join(group) for group in _group(every.tile_of, matches, covers)]
    objects.sort(key=lambda one: -one[1])
    boxes, scores, labels, rles = zip(*objects, strict=True) if objects else ((), (), (), ())
    return TileMasks(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        np.array(labels, dtype=np.int64),
        list(rles),
    )


class _Detections:
    """The detections in all tiles, numbered from the first of the first tile on.

    Attributes:
        tile_of: (N,) tile of each.
        cut: (N,) bool, whether an inner border of its tile cuts it.
    """

    def __init__(
        self, tiles: Sequence[Region], found: Sequence[TileMasks], size: tuple[int, int], class_agnostic: bool
    ) -> None:
        self.tiles, self.size = tiles, size
        counts = [len(part.rles) for part in found]
        self.tile_of = np.repeat(np.arange(len(tiles)), counts)
        self.places = np.array(tiles, dtype=np.int64).reshape(-1, 4)[self.tile_of]
        self.rles = [rle for part in found for rle in part.rles]
        self.scores = np.concatenate([np.zeros(0), *(part.scores for part in found)])
        self.labels = np.concatenate([np.zeros(0, dtype=np.int64), *(part.labels for part in found)])
        self.rivals = np.zeros_like(self.labels) if class_agnostic else self.labels
        corner = np.tile(self.places[:, :2], 2)
        self.boxes = np.concatenate([np.zeros((0, 4)), *(part.boxes for part in found)]) + corner
        # Of the masks, which may reach past their boxes.
        spans = np.reshape(coco_mask.toBbox(self.rles) if self.rles else (), (-1, 4)).astype(np.int64)
        spans[:, 2:] += spans[:, :2]
        self.spans = spans + corner
        self.cut = self._find_cut()

    def _find_cut(self) -> NDArray[np.bool_]:
        edge = np.maximum(_EDGE * (self.places[:, 2:] - self.places[:, :2]), 1)
        inner = self.places != [0, 0, self.size[1], self.size[0]]
        low = np.minimum(self.boxes, self.spans)[:, :2] <= self.places[:, :2] + edge
        high = np.maximum(self.boxes, self.spans)[:, 2:] >= self.places[:, 2:] - edge
        return (np.concatenate([low, high], axis=1) & inner).any(axis=1)

    def pairs(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield pairs that may be one object: both numbers, common pixels, and pixels of each in both tiles."""
        for a, b in zip(*_overlaps(self.tiles, self.tiles), strict=True):
            if a >= b:
                continue
            shared = _intersect(self.tiles[a], self.tiles[b])
            firsts, seconds = (self._masks_in(tile, shared) for tile in (a, b))
            numbers = list(firsts), list(seconds)
            places = [[place for _, place, _ in masks.values()] for masks in (firsts, seconds)]
            for first, second in zip(*_overlaps(*places), strict=True):
                i, j = numbers[0][first], numbers[1][second]
                if self.rivals[i] == self.rivals[j]:
                    (mask, place, own), (other, other_place, others) = firsts[i], seconds[j]
                    both = _intersect(place, other_place)
                    common = _part(mask, place, both) & _part(other, other_place, both)
                    yield i, j, int(np.count_nonzero(common)), own, others

    def _masks_in(self, tile: int, region: Region) -> dict[int, tuple[NDArray[np.uint8], Region, int]]:
        """Return what a region of the image shows of the masks of a tile, where, and how many pixels; by number."""
        start, end = np.searchsorted(self.tile_of, [tile, tile + 1]).tolist()
        spans = self.spans[start:end]
        shown = (spans[:, :2] < [region.right, region.bottom]) & (spans[:, 2:] > [region.left, region.top])
        masks = {}
        for number in (start + np.flatnonzero(shown.all(axis=1))).tolist():
            mask, place = self.decode(number)
            inside = _intersect(place, region)
            mask = _part(mask, place, inside)
            if pixels := int(np.count_nonzero(mask)):
                masks[number] = mask, inside, pixels
        return masks

    def decode(self, number: int) -> tuple[NDArray[np.uint8], Region]:
        """Return a mask in its tight box, and this box in the image."""
        mask, x, y = decode_in_box(self.rles[number])
        left, top = self.places[number, :2].tolist()
        return mask, Region(left + x, top + y, left + x + mask.shape[1], top + y + mask.shape[0])

    def join(self, group: Sequence[int]) -> tuple[NDArray[np.float64], float, int, Rle]:
        """Return the box, score, label and mask of an object from its detections."""
        best = max(group, key=lambda number: (not self.cut[number], self.scores[number]))
        members = list(group) if self.cut[best] else [best]
        boxes = self.boxes[members]
        box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
        mask, place = self.decode(best)
        if len(members) > 1:
            parts = [self.decode(number) for number in members]
            places = np.array([own for part, own in parts if part.size])
            place = Region(*places[:, :2].min(axis=0).tolist(), *places[:, 2:].max(axis=0).tolist())
            mask = np.zeros(place.shape, dtype=np.uint8)
            for part, own in parts:
                _part(mask, place, own)[:] |= part
        rle = encode_in_box(mask, place.left, place.top, *self.size)
        return box, float(self.scores[best]), int(self.labels[best]), rle


def _group(
    tile_of: NDArray[np.int64], matches: list[tuple[float, int, int]], covers: list[tuple[float, int, int]]
) -> list[list[int]]:
    """Return the detections of each object: rules 1 and 2 of :func:`merge_tiles`."""
    groups = {number: [number] for number in range(len(tile_of))}  # detections with one object share a list
    for iou, i, j in sorted(matches, reverse=True):
        one, other = groups[i], groups[j]
        if iou >= MIN_MATCH and one is not other and not {*tile_of[one]} & {*tile_of[other]}:
            one += other
            groups.update(dict.fromkeys(other, one))
    for share, i, j in sorted(covers, reverse=True):
        if share >= MIN_MATCH and len(groups[i]) == 1 and groups[i] is not groups[j]:
            groups[j].append(i)
            groups[i] = groups[j]
    return list({id(group): group for group in groups.values()}.values())


def _overlaps(regions: Sequence[Region], others: Sequence[Region]) -> tuple[list[int], list[int]]:
    """Return the indices of regions and of others that share a pixel."""
    one, other = (np.array(some, dtype=np.int64).reshape(-1, 4) for some in (regions, others))
    sides = np.minimum(one[:, None, 2:], other[:, 2:]) - np.maximum(one[:, None, :2], other[:, :2])
    rows, columns = (sides > 0).all(axis=2).nonzero()
    return rows.tolist(), columns.tolist()


def _intersect(one: Region, other: Region) -> Region:
    left, top = max(one.left, other.left), max(one.top, other.top)
    return Region(left, top, min(one.right, other.right), min(one.bottom, other.bottom))


def _part(mask: NDArray[np.uint8], place: Region, region: Region) -> NDArray[np.uint8]:
    """Return the view of a mask, which lies at a place, in a region within this place."""
    left, top = place[:2]
    return mask[region.top - top : region.bottom - top, region.left - left : region.right - left]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Return evenly spaced starts of tiles along an axis."""
    if length <= side:
        return [0]
    gaps = ceil((length - side) / (side * (1 - overlap)))
    return [round(k * (length - side) / gaps) for k in range(gaps + 1)]


def _core(start: int, end: int, spans: set[tuple[int, int]]) -> tuple[int, int]:
    """Return the part of a span between the middles of what it shares with the spans before and after it."""
    before = [other for first, other in spans if first < start]
    after = [first for first, other in spans if other > end]
    first = (start + max(before)) // 2 if before else start
    return first, (end + min(after)) // 2 if after else end

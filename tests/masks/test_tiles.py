"""Tiles: their places, and detections of neighboring tiles that become those of the image.

The detector of most tests is perfect: of each object of a generated scene it finds the part that a tile shows.
"""

import subprocess
import sys
import textwrap
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxel.masks.boxes import Region
from boxel.masks.rle import decode, encode, mask_iou
from boxel.masks.tiles import TileMasks, cut_tiles, merge_tiles, tile_core


def found_in(tile, masks, scores=None, labels=None):
    """What a perfect detector finds of (N, H, W) masks in a tile; scores are by the share that is visible."""
    rows = []
    for k, mask in enumerate(masks):
        part = mask[tile.slices]
        if part.any():
            x, y, w, h = cv2.boundingRect(part.astype(np.uint8))
            score = 0.9 * part.sum() / mask.sum() if scores is None else scores[k]
            rows.append(([x, y, x + w, y + h], score, 0 if labels is None else labels[k], encode(part)))
    boxes, values, kinds, rles = zip(*rows, strict=True) if rows else ((), (), (), ())
    return TileMasks(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(values),
        np.array(kinds, dtype=int),
        [*rles],
    )


def merged(masks, side, **given):
    height, width = masks.shape[1:]
    tiles = cut_tiles(height, width, side)
    return merge_tiles(tiles, [found_in(tile, masks, **given) for tile in tiles], height, width)


def discs(places, height=120, width=160):
    masks = np.zeros((len(places), height, width), dtype=np.uint8)
    for mask, (x, y, radius) in zip(masks, places, strict=True):
        cv2.circle(mask, (x, y), radius, 1, -1)
    return masks > 0


def assert_same(result, masks):
    """The masks of the result are these, each once."""
    expected = sorted(encode(mask)["counts"] for mask in masks)
    assert sorted(rle["counts"] for rle in result.rles) == expected


@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(32, 200), st.sampled_from([0, 0.1, 0.25, 0.5, 0.8])
)
def test_tiles_cover_the_image_with_the_overlap_that_is_asked_for(height, width, side, overlap) -> None:
    tiles = cut_tiles(height, width, side, overlap)
    covered, cores = np.zeros((2, height, width), dtype=int)
    for tile in tiles:
        assert tile.shape == (min(side, height), min(side, width))
        core = tile_core(tile, tiles)
        assert tile.left <= core.left and core.right <= tile.right and tile.top <= core.top
        covered[tile.slices] += 1
        cores[core.slices] += 1
    assert covered.min() == 1 and (cores == 1).all()
    lefts = sorted({tile.left for tile in tiles})
    assert all(b - a <= side * (1 - overlap) + 1 for a, b in pairwise(lefts))


def test_an_object_across_four_tiles_comes_out_once_and_whole() -> None:
    """The disc is larger than the overlap, so that no tile shows all of it."""
    masks = discs([(80, 60, 30)])
    tiles = cut_tiles(120, 160, 100)
    assert sum(masks[0][tile.slices].any() for tile in tiles) == 4
    assert not any(masks[0][tile.slices].sum() == masks[0].sum() for tile in tiles)
    result = merged(masks, 100)
    assert_same(result, masks)
    assert result.boxes.tolist() == [[50, 30, 111, 91]] and result.labels.tolist() == [0]
    shares = [masks[0][tile.slices].mean() * np.prod(tile.shape) / masks[0].sum() for tile in tiles]
    assert result.scores[0] == pytest.approx(0.9 * max(shares))


@pytest.mark.parametrize("side", [40, 64, 100, 119, 500])
def test_a_scene_of_many_objects_is_that_of_the_whole_image(side) -> None:
    places = [(x, y, 3 + (x * y) % 6) for x in range(8, 155, 18) for y in range(8, 115, 18)]
    masks = discs(places)
    assert len(places) > 50
    assert_same(merged(masks, side), masks)


@given(st.lists(st.tuples(st.integers(0, 159), st.integers(0, 119), st.integers(1, 50)), max_size=8))
def test_objects_of_any_size_come_out_once(places) -> None:
    """Each object is what the later ones leave of it; its parts may lie apart."""
    masks = discs(places)
    for k in range(len(masks) - 1):
        masks[k] &= ~masks[k + 1 :].any(0)
    masks = masks[[cv2.connectedComponents(mask.astype(np.uint8))[0] == 2 for mask in masks]]
    assert_same(merged(masks, 64), masks)


def test_a_whole_object_is_taken_from_the_tile_that_shows_it_whole() -> None:
    """The part in the other tile has a higher score and a wrong edge, and counts for nothing."""
    masks = discs([(60, 50, 12)])
    tiles = cut_tiles(120, 160, 80)
    assert tiles[0].right == 80 and tiles[1].left == 40
    parts = [found_in(tile, masks) for tile in tiles]
    wrong = discs([(62, 50, 12)])
    wrong[:, :, :50] = False
    right = Region(50, 0, 130, 80)
    result = merge_tiles([tiles[0], right], [parts[0], found_in(right, wrong, scores=[0.99])], 120, 160)
    assert_same(result, masks)
    assert result.scores.tolist() == pytest.approx([0.9])


def test_parts_that_are_detected_apart_join_the_object_they_belong_to() -> None:
    """A U lies in the second tile but for the ends of its legs, which are two objects to the first one."""
    shape = np.zeros((1, 100, 175), dtype=bool)
    shape[0, 20:80, 60:150] = True
    shape[0, 35:65, 60:130] = False
    tiles = cut_tiles(100, 175, 100)
    legs = np.concatenate([shape, shape])
    legs[0, 50:], legs[1, :50] = False, False
    parts = [found_in(tiles[0], legs), found_in(tiles[1], shape)]
    assert len(parts[0].rles) == 2
    assert_same(merge_tiles(tiles, parts, 100, 175), shape)


def test_objects_that_touch_stay_apart() -> None:
    masks = np.zeros((2, 100, 175), dtype=bool)
    masks[0, 20:50, 60:140], masks[1, 50:80, 60:140] = True, True
    assert_same(merged(masks, 100), masks)


def test_classes_stay_apart_unless_they_compete() -> None:
    masks = discs([(80, 60, 10)])
    tiles = cut_tiles(120, 160, 100)
    parts = [found_in(tile, masks, labels=[k % 2], scores=[0.5 + k / 10]) for k, tile in enumerate(tiles)]
    apart = merge_tiles(tiles, parts, 120, 160)
    assert sorted(apart.labels.tolist()) == [0, 1]
    one = merge_tiles(tiles, parts, 120, 160, class_agnostic=True)
    assert one.labels.tolist() == [1] and one.scores.tolist() == pytest.approx([0.8])


def test_two_detections_of_one_tile_are_never_one_object() -> None:
    """NMS has kept both, e.g. one in front of the other; each finds its own partner in the next tile."""
    masks = discs([(88, 50, 30), (88, 50, 24)], 100, 175)
    result = merged(masks, 100, scores=[0.9, 0.8])
    assert_same(result, masks)
    assert mask_iou(*result.rles) > 0.5


def test_objects_are_sorted_by_score_and_nothing_is_nothing() -> None:
    masks = discs([(20, 20, 8), (140, 20, 8), (80, 60, 8)])
    assert merged(masks, 64, scores=[0.2, 0.9, 0.5]).scores.tolist() == pytest.approx([0.9, 0.5, 0.2])
    empty = merged(masks[:0], 64)
    assert empty.boxes.shape == (0, 4) and empty.rles == []
    tiles = cut_tiles(120, 160, 64)
    none = TileMasks(np.zeros((1, 4)), np.ones(1), np.zeros(1, int), [encode(np.zeros((64, 64)))])
    parts = [none, *(found_in(tile, masks[:0]) for tile in tiles[1:])]
    assert not decode(merge_tiles(tiles, parts, 120, 160).rles[0]).any()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_two_thousand_masks_of_a_huge_image_take_little_memory() -> None:
    """One dense mask of the image would exceed what the process may take beyond what it has."""
    code = """
    import resource
    import numpy as np
    from boxel.masks.rle import encode
    from boxel.masks.tiles import TileMasks, cut_tiles, merge_tiles

    size, step = 10_000, 223
    tiles = cut_tiles(size, size, 1000)
    corners = [(x, y) for x in range(3, size - 100, step) for y in range(3, size - 100, step)]
    parts = []
    for tile in tiles:
        boxes, rles = [], []
        for x, y in corners:
            box = np.array([x, y, x + 60, y + 60]) - np.tile(tile[:2], 2)
            box = box.clip(0, 1000)
            if (box[2:] > box[:2]).all():
                mask = np.zeros((1000, 1000), np.uint8)
                mask[box[1] : box[3], box[0] : box[2]] = 1
                boxes.append(box)
                rles.append(encode(mask))
        count = len(boxes)
        parts.append(TileMasks(np.array(boxes, np.float32), np.full(count, 0.5), np.zeros(count, int), rles))
    used = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + 60_000_000, used + 60_000_000))
    found = merge_tiles(tiles, parts, size, size)
    try:
        np.ones(size * size, np.uint8)
    except MemoryError:
        print(len(corners), len(found.rles))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["2025", "2025"], done.stderr

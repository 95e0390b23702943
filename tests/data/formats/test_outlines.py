"""Masks as rings: exact, simplified, with holes and parts, as other libraries fill them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from boxel.data.formats.outlines import MIN_IOU, join_rings, overlap, simplify_rings, trace_outline
from boxel.masks.rle import decode, encode, polygon_area


def fill(rings, height, width):
    """Fill polygons as pycocotools does."""
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(rings, height, width)))


def fill_by_points(ring, height, width, nonzero):
    """Whether each pixel's center is inside a ring, by the even-odd or the nonzero rule."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    points = np.reshape(ring, (-1, 2)) + 1e-9  # no center lies on an edge
    winding = np.zeros((height, width), dtype=int)
    crossings = np.zeros((height, width), dtype=int)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        crosses = (y0 <= y) != (y1 <= y)
        at = x0 + (y - y0) / (y1 - y0 if y1 != y0 else 1) * (x1 - x0)
        hit = crosses & (at > x)
        winding += np.where(hit, 1 if y1 > y0 else -1, 0)
        crossings += hit
    return (winding != 0) if nonzero else crossings % 2 == 1


def ring_and_part():
    """A square of 20 with a hole of 10, and a rectangle of 10 x 6."""
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:25, 5:25] = 1
    mask[10:20, 10:20] = 0
    mask[30:36, 40:50] = 1
    return mask


def disk(radius, size=128):
    mask = np.zeros((size, size), dtype=np.uint8)
    cv2.circle(mask, (size // 2, size // 2), radius, 1, -1)
    return mask


def test_a_rectangle_has_four_corners():
    mask = np.zeros((20, 30))
    mask[5:15, 10:28] = 1
    outline = trace_outline(encode(mask))
    assert outline.rings == [[10, 5, 10, 15, 28, 15, 28, 5]] and outline.iou == 1


def test_an_empty_mask_has_no_outline():
    assert trace_outline(encode(np.zeros((4, 4)))).rings == []


def test_holes_are_reached_along_a_line_of_no_width():
    mask = ring_and_part()
    outline = trace_outline(encode(mask), tolerance=0)
    holed, part = outline.rings
    assert part == [40, 30, 40, 36, 50, 36, 50, 30] and outline.iou == 1
    # 4 corners, back to the first, 4 of the hole and back to its first.
    assert len(holed) == 2 * (4 + 1 + 4 + 1)
    assert polygon_area(np.reshape(holed, (-1, 2))) == 20 * 20 - 10 * 10
    assert (fill([holed, part], 40, 60) == mask).all()


@pytest.mark.parametrize("nonzero", [False, True])
def test_either_rule_of_filling_leaves_the_hole(nonzero):
    mask = ring_and_part()
    (ring,) = trace_outline(encode(mask), tolerance=0, joined=True).rings
    assert (fill_by_points(ring, 40, 60, nonzero) == mask).all()


def test_opencv_fills_a_ring_with_a_hole_right():
    mask = ring_and_part()
    mask[30:] = 0
    (ring,) = trace_outline(encode(mask), tolerance=0, joined=True).rings
    large = np.zeros((400, 600), dtype=np.uint8)  # OpenCV draws the edges too: 1 of 10 pixels here
    cv2.fillPoly(large, [np.round(np.reshape(ring, (-1, 2)) * 10).astype(np.int32)], 1)
    expected = np.kron(mask, np.ones((10, 10), dtype=np.uint8))
    assert (large & expected).sum() / (large | expected).sum() > 0.98
    assert not large[110:190, 110:190].any()


random_masks = st.integers(0, 2**32 - 1).map(
    lambda seed: (np.random.default_rng(seed).random((9, 11)) < 0.6).astype(np.uint8)
)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(random_masks, st.booleans())
def test_exact_outlines_are_exact_in_any_form(mask, joined):
    if mask.any():
        outline = trace_outline(encode(mask), tolerance=0, joined=joined)
        assert outline.iou == 1 and (fill(outline.rings, 9, 11) == mask).all()
        assert not joined or len(outline.rings) == 1
        if joined:
            assert (fill_by_points(outline.rings[0], 9, 11, nonzero=False) == mask).all()


@settings(derandomize=True, max_examples=40, deadline=None)
@given(random_masks)
def test_the_iou_that_is_returned_is_that_of_the_rings(mask):
    rle = encode(mask)
    outline = trace_outline(rle, joined=True)
    if mask.any():
        assert outline.iou == pytest.approx(overlap(outline.rings, rle)) and outline.iou >= MIN_IOU


@pytest.mark.parametrize("radius", [3, 10, 30, 60])
def test_the_tolerance_follows_the_size(radius):
    mask = disk(radius)
    exact, simple = trace_outline(encode(mask), 0), trace_outline(encode(mask))
    count = len(simple.rings[0]) // 2
    assert simple.iou >= MIN_IOU and count <= len(exact.rings[0]) // 2
    # A regular polygon of n sides fills sin(2 pi / n) / (2 pi / n) of its circle: 26 sides for 0.99.
    assert count <= 40


def test_a_fixed_tolerance_is_kept():
    mask = disk(40)
    counts = [len(trace_outline(encode(mask), tolerance).rings[0]) for tolerance in (0.5, 1, 2, 4)]
    assert counts == sorted(counts, reverse=True) and counts[-1] <= 24
    for tolerance in (1, 4):
        (ring,) = trace_outline(encode(mask), tolerance).rings
        border = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0][0][:, 0] + 0.5
        contour = np.reshape(ring, (-1, 1, 2)).astype(np.float32)
        distances = [abs(cv2.pointPolygonTest(contour, point.tolist(), True)) for point in border]
        assert max(distances) <= tolerance + 0.75  # and half a pixel to its middle


def test_specks_are_kept_at_any_tolerance():
    mask = disk(30)
    mask[2:4, 2:4] = 1
    assert len(trace_outline(encode(mask), 8).rings) == 2


def test_joined_rings_pass_there_and_back():
    near, far = [0.0, 0, 2, 0, 2, 2], [5.0, 2, 9, 2, 9, 9]
    assert join_rings([near, far]) == [0, 0, 2, 0, 2, 2, 5, 2, 9, 2, 9, 9, 5, 2, 2, 2]
    assert join_rings([near]) == near


def test_polygons_lose_the_vertices_on_a_line():
    square = [0, 0, 5, 0.2, 10, 0, 10, 10, 0, 10]
    assert simplify_rings([square], 0) == [square]
    assert simplify_rings([square], 0.5) == [[0, 0, 10, 0, 10, 10, 0, 10]]
    sliver = [0, 0, 9, 0, 9, 0.1]
    assert simplify_rings([sliver], 2) == [sliver]


@pytest.mark.slow
def test_real_masks_keep_their_iou_with_few_points(shared_data):
    import boxel.data

    data = boxel.data.read(shared_data / "coco/val_masks.json")
    some = np.flatnonzero(data.has_mask & ~data.iscrowd)[:300].tolist()
    outlines = [(trace_outline(rle, joined=True), rle) for rle in (data.rle(i) for i in some)]
    assert min(overlap(outline.rings, rle) for outline, rle in outlines) >= MIN_IOU
    assert np.median([len(outline.rings[0]) // 2 for outline, _ in outlines]) < 35
    assert all(decode(rle).any() for _, rle in outlines)

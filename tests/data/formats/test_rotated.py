"""Rotated boxes."""

import json
import math
import warnings

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boxel.cli import main
from boxel.data import ConversionWarning, convert, example_scenes, read
from boxel.data.formats.extras import decode_extras, encode_extras
from boxel.data.formats.geometry import enclose, rotate_box
from boxel.data.formats.rotated import (
    CORNERS,
    add_rotated_boxes,
    find_mask_corners,
    find_rotated,
)
from boxel.masks.rle import encode, to_rle
from boxel.utils.errors import UsageError

SIDES = st.floats(1, 50)


@given(SIDES, SIDES, SIDES, SIDES, st.floats(0, 359), st.booleans())
def test_a_rotated_box_is_found_again_by_its_corners(x, y, width, height, degrees, is_reversed):
    box = [x, y, x + width, y + height]
    center = (x + width / 2, y + height / 2)
    corners = rotate_box(box, degrees, center)
    if is_reversed:
        corners = [corners[k] for k in (0, 3, 2, 1)]
    found = find_rotated({CORNERS: corners}, np.array(enclose(corners)))
    assert found is not None and found[0] == pytest.approx(center, abs=1e-4)
    again = rotate_box(
        [
            found[0][0] - found[1] / 2,
            found[0][1] - found[2] / 2,
            found[0][0] + found[1] / 2,
            found[0][1] + found[2] / 2,
        ],
        found[3],
        found[0],
    )
    for corner in corners:
        assert min(math.dist(corner, other) for other in again) < 1e-3


@pytest.mark.parametrize(
    "corners",
    [
        [[0, 0], [10, 0], [14, 8], [0, 8]],  # not a rectangle
        [[0, 0], [10, 0], [10, 8]],
        [[0, 0, 1], [10, 0, 1], [10, 8, 1], [0, 8, 1]],
        [["a", 0], [10, 0], [10, 8], [0, 8]],
        [[0, 0], [10, 0], [float("nan"), 8], [0, 8]],
        None,
    ],
)
def test_other_corners_are_not_a_rotated_box(corners):
    points = [[x, y] for x, y, *_ in corners or [[0, 0]] if isinstance(x, int)]
    assert find_rotated({CORNERS: corners}, np.array(enclose(points), dtype=float)) is None


def cross(one, other):
    return one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]


@pytest.mark.parametrize("seed", range(6))
def test_no_rectangle_around_a_mask_is_smaller(seed):
    """The corners of all pixels lie in the rectangle; at no multiple of half a degree there is a smaller one."""
    mask = np.zeros((60, 80), dtype=np.uint8)
    rng = np.random.default_rng(seed)
    cv2.ellipse(mask, (40, 30), (25, 8), float(rng.uniform(0, 180)), 0, 360, 1, -1)
    mask &= rng.random(mask.shape) < 0.7
    y, x = np.nonzero(mask)
    pixels = np.concatenate([np.stack([x + dx, y + dy], axis=1) for dx in (0, 1) for dy in (0, 1)])
    code = encode(mask)
    corners = np.array(find_mask_corners(code, code))
    sides = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(sides, axis=1)
    assert (cross(sides, np.roll(sides, -1, axis=0)) > 0).all()  # clockwise as drawn
    assert corners.sum(axis=1).argmin() == 0
    inside = cross(sides[:, None], pixels - corners[:, None])
    assert (inside >= -1e-2 * lengths[:, None]).all()
    turns = np.radians(np.arange(0, 90, 0.5))
    across = [pixels @ (np.cos(turns), np.sin(turns)), pixels @ (-np.sin(turns), np.cos(turns))]
    assert lengths[0] * lengths[1] <= (np.ptp(across[0], axis=0) * np.ptp(across[1], axis=0)).min() + 0.1


def test_polygons_are_enclosed_as_they_are():
    ring = [10.5, 0, 20.5, 10, 10.5, 20, 0.5, 10]
    corners = find_mask_corners([ring, [1, 2, 3, 4]], to_rle([ring], 30, 30))
    np.testing.assert_allclose(sorted(corners), [[0.5, 10], [10.5, 0], [10.5, 20], [20.5, 10]], atol=1e-3)
    empty = encode(np.zeros((3, 4)))
    assert find_mask_corners(empty, empty) is None and find_mask_corners(None, None) is None


def test_masks_get_rotated_boxes_and_rotated_boxes_stay():
    data = example_scenes()
    given = [[0, 5], [5, 0], [10, 5], [5, 10]]
    data.extras[0], data.boxes[0] = encode_extras({CORNERS: given}), [0, 0, 10, 10]
    data.extras[1] = encode_extras({CORNERS: given})  # not those of its box
    data.segmentations[2] = None
    data.segmentations[3] = b"[[1, 2]]"
    found = [decode_extras(extras).get(CORNERS) for extras in add_rotated_boxes(data).extras]
    assert found[0] == given and found[1] != given and len(found[1]) == 4
    assert found[2] is None and found[3] is None
    assert (
        add_rotated_boxes(add_rotated_boxes(data)).extras.tolist() == add_rotated_boxes(data).extras.tolist()
    )


def test_converting_adds_rotated_boxes_that_are_those_of_yolo_obb(tmp_path):
    source, target = example_scenes().file, tmp_path / "rotated.json"
    assert main(["convert", source, str(target), "--rotated"]) == 0
    rows = json.loads(target.read_text())["annotations"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        convert(source, tmp_path / "obb", "yolo-obb")
        convert(target, tmp_path / "again", "yolo-obb")
    boxes = read(tmp_path / "obb")
    of_yolo = {id: decode_extras(extras) for id, extras in zip(boxes.ids, boxes.extras, strict=True)}
    rotated = [row for row in rows if CORNERS in of_yolo[row["id"]]]
    assert len(rows) == 5 and len(rotated) >= 2 and all(len(row[CORNERS]) == 4 for row in rows)
    for row in rotated:
        inside = np.clip(row[CORNERS], 0, [96, 64])
        np.testing.assert_allclose(of_yolo[row["id"]][CORNERS], inside, atol=1e-2)
    label = next((tmp_path / "obb/labels").rglob("*.txt"))
    assert label.read_text() == (tmp_path / "again" / label.relative_to(tmp_path / "obb")).read_text()
    with pytest.raises(UsageError, match="yolo-obb has the rotated boxes of masks in any case"):
        convert(source, tmp_path / "no", "yolo-obb", rotated=True)

"""Images of 100 x 80 stored pixels that EXIF rotates; with a quarter turn they are 80 x 100 upright."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from boxel.data.checks import check, repair
from boxel.data.checks.exif import rotate_pixels, rotate_points
from boxel.data.images import read_image
from boxel.masks.rle import decode, encode

# A box of the stored image that does not fit into an 80 x 100 image, and its position after each quarter turn.
STORED = (85, 10, 95, 30)
UPRIGHT = {5: (10, 85, 30, 95), 6: (50, 85, 70, 95), 7: (50, 5, 70, 15), 8: (10, 5, 30, 15)}


def photo(path: Path, orientation: int, box: tuple[int, int, int, int] | None = None) -> None:
    pixels = np.zeros((80, 100, 3), dtype=np.uint8)
    if box:
        pixels[box[1] : box[3], box[0] : box[2]] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


def kinds(data) -> list[tuple[str, int | str | None]]:
    return [(issue.kind, issue.image_id) for issue in check(data)]


@pytest.fixture
def one(make, tmp_path):
    """`one(orientation, boxes, ...)`: a dataset of a single image; its recorded size is the stored one."""

    def one(orientation, boxes, segmentations=None, **columns):
        photo(tmp_path / "a.png", orientation)
        columns = {"widths": [100], "heights": [80]} | columns
        return make(boxes, segmentations, root=tmp_path, image_ids=[1], paths=["a.png"], **columns)

    return one


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_stored_boxes_and_masks_are_rotated_with_the_pixels(one, tmp_path, orientation) -> None:
    photo(tmp_path / "square.png", orientation, STORED)
    rows, columns = np.nonzero(read_image(tmp_path / "square.png")[..., 0])
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == UPRIGHT[orientation]

    mask = np.zeros((80, 100), dtype=np.uint8)
    mask[10:30, 85:95] = 1
    mask[10, 94] = 0  # so that it is not a box
    polygon = [[85, 10, 94, 10, 94, 11, 95, 11, 95, 30, 85, 30]]
    data = one(orientation, [STORED, STORED], [encode(mask), polygon], labels=[0, 1])
    issues = check(data)
    assert [issue.kind for issue in issues] == ["image-size", "exif-boxes"]
    assert issues[1].values == {"orientation": orientation, "stored": [100, 80], "extent": [95, 30]}
    repaired, _ = repair(data)
    assert (repaired.widths.tolist(), repaired.heights.tolist()) == ([80], [100])
    np.testing.assert_array_equal(repaired.boxes, [UPRIGHT[orientation]] * 2)
    expected = rotate_pixels(mask, orientation)
    np.testing.assert_array_equal(decode(repaired.rle(0)), expected)
    np.testing.assert_array_equal(decode(repaired.rle(1)), expected)
    assert check(repaired) == []


def test_upright_boxes_are_unchanged(one) -> None:
    data = one(6, [(10, 85, 30, 99)])  # the size is the stored one, but only the upright image holds the box
    assert kinds(data) == [("image-size", 1)]
    np.testing.assert_array_equal(repair(data)[0].boxes, data.boxes)


@pytest.mark.parametrize("size", [(80, 100), (0, 0)])
def test_ambiguous_boxes_are_unchanged_if_the_size_is_upright_or_unknown(one, size) -> None:
    data = one(6, [(10, 10, 30, 30)], widths=[size[0]], heights=[size[1]])
    assert kinds(data) == []
    np.testing.assert_array_equal(repair(data)[0].boxes, data.boxes)


def test_ambiguous_boxes_are_rotated_if_the_size_is_the_stored_one(one) -> None:
    repaired, issues = repair(one(8, [(10, 20, 30, 50)]))
    assert [issue.kind for issue in issues] == ["image-size", "exif-boxes"]
    np.testing.assert_array_equal(repaired.boxes, [(20, 70, 50, 90)])


def test_an_upright_size_is_overruled_only_by_boxes_far_outside(one) -> None:
    upright = {"widths": [80], "heights": [100]}
    assert kinds(one(6, [(10, 10, 84, 30)], **upright)) == [("box-outside", 11 - 10)]
    assert kinds(one(6, [(10, 10, 95, 30)], **upright)) == [("exif-boxes", 1)]


def test_one_upright_image_makes_read_headers_inconclusive(make, tmp_path) -> None:
    photo(tmp_path / "a.png", 6)
    photo(tmp_path / "b.png", 6)
    boxes = [(10, 10, 30, 30), (10, 10, 30, 95)]
    data = make(boxes, root=tmp_path, image_index=[0, 1])
    assert kinds(data) == [("image-size", 1), ("image-size", 2)]
    np.testing.assert_array_equal(repair(data)[0].boxes, boxes)


def test_half_turns_beside_stored_boxes_are_unclear(make, tmp_path) -> None:
    photo(tmp_path / "a.png", 6)
    photo(tmp_path / "b.png", 3)
    data = make([STORED, (10, 10, 30, 30)], root=tmp_path, image_index=[0, 1])
    issues = check(data)
    assert [(f.kind, f.image_id) for f in issues] == [
        ("image-size", 1),
        ("exif-boxes", 1),
        ("exif-unclear", 2),
    ]
    assert issues[2].repair == ""
    np.testing.assert_array_equal(repair(data)[0].boxes, [UPRIGHT[6], (10, 10, 30, 30)])


def test_invalid_masks_and_boxes_are_left_to_their_own_checks(one) -> None:
    nan = float("nan")
    boxes = [STORED, (95, 30, 85, 10), (nan, 10, 95, 30), (1, 1, 9, 9)]
    repaired, issues = repair(one(6, boxes, [{"size": [80, 100], "counts": "~"}, b"{", None, [[1, 2, 3]]]))
    assert [(f.kind, f.annotation_id) for f in issues] == [
        ("image-size", None),
        ("exif-boxes", None),
        ("mask-size", 11),
        ("mask-invalid", 12),
        ("mask-invalid", 14),
        ("box-nan", 13),
        ("box-inverted", 12),
        ("duplicate-box", 12),
    ]
    np.testing.assert_array_equal(repaired.boxes, [UPRIGHT[6], (71, 1, 79, 9)])
    assert repaired.segmentations.tolist() == [None, None]


def test_polygons_keep_their_numbers(one) -> None:
    data = one(6, [(85, 10, 95, 30.5)], [[[85, 10, 95, 10, 95, 30.5]]])
    polygons = msgspec.json.decode(repair(data)[0].segmentations[0])
    assert polygons == [[70, 85, 70, 95, 49.5, 95]]


def test_rotated_points_match_hand_worked_values() -> None:
    corner = np.array([[100.0, 0.0]])  # upper right of the stored 100 x 80 image
    assert {o: rotate_points(corner, o, 100, 80).tolist()[0] for o in (5, 6, 7, 8)} == {
        5: [0, 100],
        6: [80, 100],
        7: [80, 0],
        8: [0, 0],
    }

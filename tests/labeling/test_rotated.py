"""`--rotated`: the smallest rotated box around each mask is written beside it."""

import json

import numpy as np
import pytest

import boxel
from boxel.cli import main
from boxel.data.formats.extras import decode_extras
from boxel.labeling.api import label_data


@pytest.fixture
def boxes(make_set, tmp_path):
    make_set(1)
    return tmp_path / "set" / "boxes.json"


def read_corners(file):
    return [row.get("corners") for row in json.loads(file.read_text())["annotations"]]


QUARTER = [[0, 0], [30, 0], [30, 20], [0, 20]]  # the box of the second instance


def test_label_writes_and_takes_back_rotated_boxes(boxes, tmp_path):
    out = tmp_path / "masks.json"
    command = ["label", str(boxes), "--out", str(out), "--teacher", "rectangle", "--merge", "none"]
    assert main([*command, "--rotated"]) == 0
    assert read_corners(out) == [[[22, 12], [38, 12], [38, 28], [22, 28]], QUARTER]
    assert json.loads(out.read_text())["info"]["boxel"]["settings"]["rotated"] is True
    assert main(command) == 0
    assert read_corners(out) == [None, None]


def test_corners_follow_masks_that_are_edited_or_made_again(boxes, tmp_path):
    out = tmp_path / "masks.json"
    label_data(boxes, out=out, teacher="ellipse", merge="none", rotated=True)
    content = json.loads(out.read_text())
    content["annotations"][0]["segmentation"] = [[30, 10, 40, 20, 30, 30, 20, 20]]
    out.write_text(json.dumps(content))
    label_data(boxes, out=out, teacher="ellipse", merge="none")
    assert read_corners(out) == [None, None]
    label_data(boxes, out=out, teacher="ellipse", merge="none", rotated=True)
    edited, made = read_corners(out)
    np.testing.assert_allclose(sorted(edited), [[20, 20], [30, 10], [30, 30], [40, 20]], atol=1e-3)
    assert made == QUARTER
    again = boxel.label(out, teacher="inner-box", relabel=True, rotated=True)
    corners = np.array(decode_extras(again.extras[1])["corners"])
    assert np.ptp(corners, axis=0).max() < 15 and (corners.mean(axis=0) == [15, 10]).all()
    plain = boxel.label(out, teacher="inner-box", relabel=True)
    assert "corners" not in decode_extras(plain.extras[1])


def test_boxes_that_were_rotated_stay_so(boxes, tmp_path):
    given = [[30, 8], [42, 20], [30, 32], [18, 20]]
    content = json.loads(boxes.read_text())
    content["annotations"][0] |= {"bbox": [18, 8, 24, 24], "corners": given}
    boxes.write_text(json.dumps(content))
    for rotated in (True, False):
        masks = boxel.label(boxes, teacher="ellipse", rotated=rotated)
        assert decode_extras(masks.extras[0])["corners"] == given

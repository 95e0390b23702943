"""The table of what each format keeps holds for other random datasets, and for every pair of formats."""

import itertools
import json
import runpy
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boxel

TABLE = runpy.run_path(str(Path(__file__).resolve().parents[3] / "docs/round_trips.py"))
FORMATS = list(TABLE["FORMATS"].values())


@cache
def kept_by(format: str) -> frozenset[str]:
    return frozenset(TABLE["kept_by"](format))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path


@pytest.mark.parametrize("format", ["coco", "parquet"])
def test_a_single_file_keeps_everything(format):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    assert TABLE["kept_by"](format, with_ids=False) == TABLE["FIELDS"].keys()


@pytest.mark.parametrize(
    ("format", "lost"),
    [
        ("darknet", ["masks, exactly", "masks, IoU of 0.95 and more", "untrusted masks"]),
        ("yolo-obb", ["masks, exactly", "masks, IoU of 0.95 and more", "untrusted masks"]),
        ("cvat", ["untrusted masks"]),
    ],
)
def test_what_boxel_ids_cannot_keep(format, lost):
    assert TABLE["FIELDS"].keys() - kept_by(format) == {*lost}


def test_label_maps_keep_classes_and_splits_but_no_objects():
    assert kept_by("semantic") == {"class names", "category ids", "splits"}
    assert {format for format in FORMATS if TABLE["keeps_label_maps"](format)} == {"parquet", "semantic"}


def test_an_edited_row_of_oriented_boxes_keeps_its_corners_and_its_other_fields(folder):
    data = TABLE["random_dataset"](folder / "in", 0).select_images([0]).select_instances([0]).without_masks()
    data.extras[0] = TABLE["EXTRAS"]
    TABLE["convert"](data, "yolo-obb", folder)
    (file,) = (folder / "yolo-obb/labels").rglob("*.txt")
    x0, y0, x1, y1 = (data.boxes[0] / [144, 96, 144, 96]).tolist()
    turned = [(x0 + x1) / 2, y0, x1, (y0 + y1) / 2, (x0 + x1) / 2, y1, x0, (y0 + y1) / 2]
    file.write_text(" ".join(map(str, [0, *turned])))
    found = boxel.read(folder / "yolo-obb")
    fields = json.loads(found.extras[0])
    assert found.ids == data.ids and fields["track_id"] == 7
    assert np.allclose(fields["corners"], np.reshape(turned, (4, 2)) * [144, 96], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_what_a_format_keeps_survives_in_other_datasets(format):
    assert TABLE["kept_by"](format, seeds=range(100, 110)) >= kept_by(format)


def is_possible(first, second):
    """Return whether the second format holds anything of the first: one of masks alone holds nothing of boxes alone."""
    return not (first in ("yolo-obb", "darknet") and second in ("sbd", "semantic"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"), [pair for pair in itertools.permutations(FORMATS, 2) if is_possible(*pair)]
)
def test_what_two_formats_keep_survives_both(folder, first, second):
    data = TABLE["random_dataset"](folder / "in", 200)
    there = TABLE["convert"](data, first, folder)
    back = TABLE["convert"](there, second, folder)
    assert TABLE["survivors"](data, back) >= kept_by(first) & kept_by(second)


@pytest.mark.parametrize("format", ["cvat", "label-studio", "fiftyone"])
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_extended_formats_keep_all_fields_and_each_pixel(convert_random, check_same, draw, format):
    data, found, (masks, read) = convert_random(draw, format)
    check_same(found, data)
    for i, (before, after) in enumerate(zip(masks, read, strict=True)):
        if before is None or not data.trusted[i] or not before.any():
            assert after is None
        else:
            np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("format", "name"), [("cvat", "CVAT"), ("label-studio", "Label Studio"), ("fiftyone", "FiftyOne")]
)
def test_what_extended_formats_lose_is_reported_once(tmp_path, describe_losses, format, name):
    crowds = f"{name} has no crowds: 1 are written as ordinary instances."
    assert describe_losses(tmp_path, format) == [crowds] * (format != "fiftyone") + [
        f"{name} cannot mark a mask as untrusted: 1 are written as boxes only.",
        f"{name} has no box beside a mask: 1 are written as the tight ones, which differ by up to 3 pixels.",
    ]


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "semantic"])
def test_poses_and_tracks_are_carried_or_reported(folder, format):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    data = TABLE["random_dataset"](folder / "in", 0).select_instances([0]).without_masks()
    fields = {"track_id": 7, "keypoints": [9, 8, 2, 5, 5, 0], "num_keypoints": 1}
    data.extras[0] = json.dumps(fields).encode()
    target = folder / f"out{TABLE['SUFFIXES'].get(format, '')}"
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        boxel.write(data, target, format)
    sentences = " ".join(str(warning.message) for warning in found)
    again = boxel.read(target, images=data.root if target.is_file() else None, format=format)
    if format == "sbd":  # which has no boxes without a mask
        assert "1 of 1 instances are left out" in sentences
        return
    kept = json.loads(again.extras[0])
    assert {name: kept[name] for name in fields} == fields
    lost = set() if format in ("coco", "parquet", "labelme", "voc") else {"track_id", "keypoints"}
    lost -= {"keypoints"} if format == "yolo" else set()  # which has poses
    assert {name for name in ("track_id", "keypoints") if f"{name} (1 object)" in sentences} == lost

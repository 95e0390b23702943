"""Reading and writing COCO JSON."""

import json
import math
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

import boxel.data
from boxel.data.formats import coco, write_as_given
from boxel.utils.errors import BoxelError

TRIANGLE = [[10.0, 10.0, 30.0, 10.0, 30.0, 40.0]]
MINIMAL = {
    "images": [
        {"id": 7, "file_name": "a/one.jpg", "width": 64, "height": 48},
        {"id": 9, "file_name": "two.jpg"},
    ],
    "annotations": [
        {"id": 3, "image_id": 9, "category_id": 0, "bbox": [1, 2, 3, 4]},
        {
            "id": 5,
            "image_id": 7,
            "category_id": 90,
            "bbox": [10, 10, 20, 30],
            "segmentation": TRIANGLE,
            "keypoints": [1, 2, 2],
            "num_keypoints": 1,
        },
        {
            "id": 4,
            "image_id": 7,
            "category_id": 90,
            "bbox": [0, 0, 2, 48],
            "iscrowd": 1,
            "segmentation": {"size": [48, 64], "counts": [0, 96, 2976]},
        },
    ],
    "categories": [{"id": 0, "name": "zero"}, {"id": 90, "name": "ninety", "supercategory": "numbers"}],
}


def read(tmp_path, content):
    file = tmp_path / "set.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return boxel.data.read(file)


def with_annotation(**changes):
    return {**MINIMAL, "annotations": [{**MINIMAL["annotations"][0], **changes}, MINIMAL["annotations"][1]]}


def test_every_column_is_read(tmp_path):
    data = read(tmp_path, MINIMAL)
    assert data.image_ids == [7, 9] and data.paths == ["a/one.jpg", "two.jpg"]
    assert data.widths.tolist() == [64, 0] and data.heights.tolist() == [48, 0]
    assert data.ids == [3, 5, 4] and data.image_index.tolist() == [1, 0, 0]
    assert [(c.id, c.name, c.supercategory) for c in data.categories] == [
        (0, "zero", ""),
        (90, "ninety", "numbers"),
    ]
    assert data.labels.tolist() == [0, 1, 1]
    assert data.boxes.tolist() == [[1, 2, 4, 6], [10, 10, 30, 40], [0, 0, 2, 48]]
    assert data.iscrowd.tolist() == [False, False, True]
    assert data.has_mask.tolist() == [False, True, True]
    assert data.segmentation(1) == TRIANGLE
    assert data.mask(2).sum() == 96 and data.mask(2)[:, :2].all()
    assert data.issues == []


@pytest.mark.parametrize("empty", [[], None, {}, "", "missing"])
def test_a_missing_segmentation_means_only_a_box(tmp_path, empty):
    changes = {} if empty == "missing" else {"segmentation": empty}
    data = read(tmp_path, with_annotation(**changes))
    assert data.segmentations[0] is None and len(data.labels) == 2 and data.issues == []


@pytest.mark.parametrize(
    "changes, kind",
    [
        ({"image_id": 8}, "unknown-image"),
        ({"category_id": 1}, "unknown-category"),
        ({"bbox": [1, 2, 3]}, "bad-annotation"),
        ({"bbox": "1 2 3 4"}, "bad-annotation"),
        ({"bbox": None}, "bad-annotation"),
        ({"image_id": None}, "bad-annotation"),
        ({"image_id": 9.5}, "bad-annotation"),
        ({"category_id": 10**400}, "unknown-category"),
    ],
)
def test_an_invalid_annotation_costs_only_itself(tmp_path, changes, kind):
    data = read(tmp_path, with_annotation(**changes))
    assert data.ids == [5]
    (issue,) = data.issues
    assert issue.kind == kind and str(tmp_path / "set.json") in issue.message


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"bbox": "1 2 3 4"}, 'bbox is "1 2 3 4"'),
        ({"bbox": [1, "a", 3, 4]}, r'bbox is \[1, "a", 3, 4\]'),
        ({"category_id": None}, "category_id is null"),
    ],
)
def test_an_invalid_value_is_stated(tmp_path, changes, why):
    (issue,) = read(tmp_path, with_annotation(**changes)).issues
    assert re.search(rf"annotation \d of the list cannot be read \({why}\); it is left out", issue.message)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty"),
        (" \n", "it is empty"),
        ('{"images": [{"id": 1, "file_na', "it ends too early"),
        ('{"annotations": []}', "it has no images"),
        ('{"images": 7}', "images is 7"),
        ('"images"', 'it is "images"'),
    ],
)
def test_a_file_that_is_not_a_dataset_is_refused_in_plain_words(tmp_path, text, why):
    (tmp_path / "set.json").write_text(text)
    with pytest.raises(BoxelError, match=rf"set\.json: this is not a COCO dataset \({why}\)"):
        boxel.data.read(tmp_path / "set.json")


def test_numbers_json_forbids_are_kept(tmp_path):
    data = read(tmp_path, with_annotation(bbox=[math.nan, -math.inf, 5, 6]))
    assert data.ids == [3, 5] and data.issues == []
    assert math.isnan(data.boxes[0, 0]) and data.boxes[0, 1] == -math.inf
    # A name that holds the word is not touched.
    name = {**MINIMAL, "categories": [{"id": 0, "name": "NaN, Infinity"}, {"id": 90, "name": "x"}]}
    name["annotations"] = [{**MINIMAL["annotations"][0], "bbox": [math.nan, 0, 1, 1]}]
    assert read(tmp_path, name).categories[0].name == "NaN, Infinity"


def test_issues_that_check_finds_are_kept(tmp_path):
    content = with_annotation(id=5, bbox=[5, 5, -2, 0])
    content["images"] = [*MINIMAL["images"], {"id": 7, "file_name": "again.jpg"}]
    data = read(tmp_path, content)
    assert data.ids == [5, 5] and data.image_ids == [7, 9, 7]
    assert data.boxes[0].tolist() == [5, 5, 3, 5] and data.image_index.tolist() == [1, 0]


def test_missing_fields_are_derived(tmp_path):
    content = json.loads(json.dumps(MINIMAL))
    del content["annotations"][0]["id"], content["annotations"][1]["bbox"], content["annotations"][2]["bbox"]
    data = read(tmp_path, content)
    assert data.ids == [6, 5, 4]
    assert data.boxes[1].tolist() == [10, 10, 30, 40] and data.boxes[2].tolist() == [0, 0, 2, 48]
    del content["categories"]
    data = read(tmp_path, content)
    assert [(c.id, c.name) for c in data.categories] == [(0, "0"), (90, "90")]
    assert [issue.kind for issue in data.issues] == ["no-categories"]


def test_whole_floats_are_ids(tmp_path):
    data = read(tmp_path, with_annotation(id=3.0, image_id=9.0, category_id=0.0))
    assert data.ids == [3, 5] and data.image_index.tolist() == [1, 0]


def test_a_byte_order_mark_is_skipped(tmp_path):
    assert len(read(tmp_path, b"\xef\xbb\xbf" + json.dumps(MINIMAL).encode())) == 2


@pytest.mark.parametrize(
    "layout, root",
    [
        (["set.json", "a/one.jpg"], "."),
        (["set.json", "images/a/one.jpg"], "images"),
        (["annotations/instances_train2017.json", "train2017/a/one.jpg"], "train2017"),
        (["annotations/instances_train2017.json", "images/train2017/a/one.jpg"], "images/train2017"),
        (["set.json"], "."),
    ],
)
def test_images_are_found(tmp_path, layout, root):
    for name in layout:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(MINIMAL))
    data = boxel.data.read(tmp_path / layout[0])
    assert data.root.resolve() == (tmp_path / root).resolve()
    assert (
        boxel.data.read(tmp_path / layout[0], images=tmp_path / "x").image_path(0) == tmp_path / "x/a/one.jpg"
    )


def test_the_image_folder_is_recorded_if_it_would_not_be_found(tmp_path):
    for name in ("photos/a/one.jpg", "photos/two.jpg", "images/two.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "set.json").write_text(json.dumps(MINIMAL))
    data = boxel.data.read(tmp_path / "set.json", images=tmp_path / "photos")
    write_as_given(data, tmp_path / "sub/copy.json")
    written = json.loads((tmp_path / "sub/copy.json").read_text())
    # Names stay as they are, so that other tools, and --images, find the images as before.
    assert [image["file_name"] for image in written["images"]] == ["a/one.jpg", "two.jpg"]
    assert written["info"] == {"images": "../photos"}
    again = boxel.data.read(tmp_path / "sub/copy.json")
    assert again.image_path(0).samefile(tmp_path / "photos/a/one.jpg")
    moved = boxel.data.read(tmp_path / "sub/copy.json", images=tmp_path / "images")
    assert moved.image_path(1) == tmp_path / "images/two.jpg"
    # images/ beside the file has a two.jpg of its own.
    boxel.data.write(data, tmp_path / "copy.json")
    assert boxel.data.read(tmp_path / "copy.json").root.samefile(tmp_path / "photos")
    # If the folder is found anyway, nothing is added.
    write_as_given(data, tmp_path / "photos/copy.json")
    assert "info" not in json.loads((tmp_path / "photos/copy.json").read_text())


@pytest.mark.parametrize(
    "info", [None, 3, [], {"images": 3}, {"images": "\0"}, {"images": "x" * 5000}, {"year": 1}]
)
def test_info_of_other_tools_is_ignored(tmp_path, info):
    (tmp_path / "two.jpg").write_text("")
    data = read(tmp_path, {"info": info, **MINIMAL})
    assert data.root == tmp_path and len(data.ids) == 3


def test_round_trip(tmp_path):
    content = with_annotation(quality=0.75, source="grabcut", trusted=False, bbox=[0.1, 0.2, 0.2, 0.7])
    data = read(tmp_path, content)
    boxel.data.write(data, tmp_path / "out/copy.json")
    written = json.loads((tmp_path / "out/copy.json").read_text())
    assert [a["bbox"] for a in written["annotations"]] == [[0.1, 0.2, 0.2, 0.7], [10, 10, 20, 30]]
    first, second = written["annotations"]
    assert (first["quality"], first["source"], first["trusted"]) == (0.75, "grabcut", False)
    assert not {"quality", "source", "trusted"} & second.keys()
    assert second["area"] == 300 and first["area"] == pytest.approx(0.14)
    assert written["categories"] == MINIMAL["categories"]
    again = boxel.data.read(tmp_path / "out/copy.json")
    assert again.ids == data.ids and again.image_ids == data.image_ids and again.paths == data.paths
    assert again.quality[0] == 0.75 and again.source.tolist() == ["grabcut", None]
    assert again.trusted.tolist() == [False, True]
    assert COCO(tmp_path / "out/copy.json").getAnnIds(imgIds=[7]) == [5]


def test_a_symbolic_link_is_kept(tmp_path):
    data = read(tmp_path, with_annotation())
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere.json")
    boxel.data.write(data, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert boxel.data.read(tmp_path / "elsewhere.json").ids == data.ids


def test_nan_survives_a_round_trip(tmp_path):
    data = read(tmp_path, with_annotation(bbox=[math.nan, 2, 3, 4]))
    boxel.data.write(data, tmp_path / "copy.json")
    again = boxel.data.read(tmp_path / "copy.json")
    np.testing.assert_array_equal(again.boxes, [[math.nan, 2, math.nan, 6], [10, 10, 30, 40]])


def test_text_ids_made_from_stems_become_numbers(tmp_path):
    content = {
        "images": [{"id": "one", "file_name": "one.jpg"}, {"id": "x1", "file_name": "two.jpg"}],
        "annotations": [
            {"id": "one:1", "image_id": "one", "category_id": 1, "bbox": [0, 0, 1, 1]},
            {"id": "mine", "image_id": "x1", "category_id": 1, "bbox": [0, 0, 1, 1]},
        ],
        "categories": [{"id": 1, "name": "c"}],
    }
    data = read(tmp_path, content)
    boxel.data.write(data, tmp_path / "copy.json")
    again = boxel.data.read(tmp_path / "copy.json")
    assert again.image_ids == [1, 2] and again.ids == [1, 2]
    # What boxel has not made itself is kept.
    assert again.image_extras == [None, b'{"original_id":"x1"}']
    assert again.extras.tolist() == [None, b'{"original_id":"mine"}']
    assert COCO(tmp_path / "copy.json").getAnnIds(imgIds=[2]) == [2]


EXTRA = {
    "info": {"description": "mine", "images": "."},
    "licenses": [{"id": 4, "name": "CC"}],
    "images": [
        {
            "id": 1,
            "file_name": "a.jpg",
            "width": 120,
            "height": 80,
            "license": 4,
            "coco_url": "http://x/a.jpg",
        },
        {"id": 2, "file_name": "b.jpg", "width": 120, "height": 80, "split": "val"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [20, 15, 40, 40], "keypoints": [30, 30, 2]},
        {
            "id": 2,
            "image_id": 2,
            "category_id": 1,
            "bbox": [20, 15, 40, 40],
            "attributes": {"occluded": True},
        },
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [20, 15, 4, 4], "source": {"tool": "x"}, "a b": 1},
    ],
    "categories": [{"id": 1, "name": "cat", "keypoints": ["nose"], "supercategory": "animal"}],
    "videos": [{"id": 1}],
}


def test_fields_of_others_are_carried_along(tmp_path):
    data = read(tmp_path, EXTRA)
    assert data.issues == [] and data.splits == [None, "val"]
    assert json.loads(data.image_extras[0]) == {"license": 4, "coco_url": "http://x/a.jpg"}
    assert json.loads(data.extras[1]) == {"attributes": {"occluded": True}}
    write_as_given(data, tmp_path / "copy.json")
    written = json.loads((tmp_path / "copy.json").read_text())
    assert written["info"] == {"description": "mine"} and written["videos"] == [{"id": 1}]
    for name in ("images", "categories", "licenses"):
        assert written[name] == EXTRA[name]
    for row, original in zip(written["annotations"], EXTRA["annotations"], strict=True):
        assert row | original == row
    again = boxel.data.read(tmp_path / "copy.json")
    assert again.extras.tolist() == data.extras.tolist() and again.categories == data.categories


def test_a_field_that_is_not_needed_costs_only_itself(tmp_path):
    changes = [
        {"iscrowd": 0.0},
        {"iscrowd": "1"},
        {"area": "1600"},
        {"id": "4", "image_id": "9", "category_id": "0"},
        {"bbox": ["1", "2", "3", "4"]},
        {"iscrowd": [1], "area": "much", "quality": {}, "trusted": "perhaps"},
    ]
    rows = [MINIMAL["annotations"][0] | {"id": k} | change for k, change in enumerate(changes)]
    images = [
        {"id": 9, "file_name": "two.jpg", "width": "64", "height": 48.0},
        {"id": 7, "coco_url": "u/v.jpg"},
    ]
    categories = [{"id": 0, "name": 5}, {"id": 90, "supercategory": 1}]
    data = read(tmp_path, {"images": images, "annotations": rows, "categories": categories})
    assert data.widths.tolist() == [64, 0] and data.paths == ["two.jpg", "u/v.jpg"]
    assert [(c.name, c.supercategory) for c in data.categories] == [("5", ""), ("90", "1")]
    assert data.iscrowd.tolist() == [False, True, False, False, False, False]
    assert data.areas[2] == 1600 and data.ids == [0, 1, 2, "4", 4, 5]
    assert data.boxes.tolist() == [[1, 2, 4, 6]] * 6
    assert {issue.kind for issue in data.issues} == {"bad-field"} and len(data.issues) == 5
    assert any('annotation 5: its area is "much", which is ignored' in issue.message for issue in data.issues)


def test_ordinary_rows_beside_unusual_ones_are_read_alike(tmp_path):
    rows = [MINIMAL["annotations"][k % 3] | {"id": k} for k in range(9000)]
    together = read(tmp_path, {**MINIMAL, "annotations": rows})
    rows[4500] = rows[4500] | {"iscrowd": 0.0}
    apart = read(tmp_path, {**MINIMAL, "annotations": rows})
    assert together.ids == apart.ids == list(range(9000)) and len(together.issues) == 0
    np.testing.assert_array_equal(together.boxes, apart.boxes)
    np.testing.assert_array_equal(together.segmentations, apart.segmentations)
    np.testing.assert_array_equal(together.image_index, apart.image_index)


@pytest.mark.parametrize(
    "name",
    [
        "images\\a.jpg",
        "/home/other/a.jpg",
        "D:\\x\\A.JPG",
        "http://host/upload/1/a.jpg",
        "data/a.jpeg",
        "../x/a.jpg",
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_names_of_other_machines_are_found(tmp_path, name, given, caplog):
    caplog.set_level("INFO")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").touch()
    (tmp_path / "set.json").write_text(json.dumps({**MINIMAL, "images": [{"id": 7, "file_name": name}]}))
    data = boxel.data.read(tmp_path / "set.json", images=tmp_path / "images" if given else None)
    assert data.image_path(0).samefile(tmp_path / "images/a.jpg")
    assert caplog.text.count("under another name than stated") == (name != "images\\a.jpg" or given)


def test_an_image_is_not_found_for_two(tmp_path):
    (tmp_path / "a.jpg").touch()
    images = [{"id": 1, "file_name": "x/a.jpg"}, {"id": 2, "file_name": "y/a.jpg"}]
    data = read(tmp_path, {"images": images, "annotations": []})
    assert data.paths == ["x/a.jpg", "y/a.jpg"]
    assert [(issue.kind, issue.image_id) for issue in data.issues] == [
        ("ambiguous-image", 1),
        ("ambiguous-image", 2),
    ]


def test_real_images_survive_a_round_trip(shared_data, tmp_path):
    data = boxel.data.read(shared_data / "coco/val_masks.json")
    official = COCO(shared_data / "coco/val_masks.json")
    assert data.root == shared_data / "coco/images" and data.image_path(0).is_file()
    assert len(data) == 95 and len(data.labels) == len(official.anns) and data.issues == []
    for i in range(0, len(data.labels), 10):
        np.testing.assert_array_equal(data.mask(i), official.annToMask(official.anns[data.ids[i]]))
    boxel.data.write(data, tmp_path / "copy.json")
    copy = COCO(tmp_path / "copy.json")
    for id, annotation in official.anns.items():
        assert copy.anns[id]["bbox"] == annotation["bbox"]
        assert copy.anns[id]["segmentation"] == annotation["segmentation"]
        assert copy.anns[id]["category_id"] == annotation["category_id"]
        assert copy.anns[id]["iscrowd"] == annotation["iscrowd"]
    boxes = boxel.data.read(shared_data / "coco/val_boxes.json")
    assert not boxes.has_mask.any() and boxes.issues == []


WHOLE = json.dumps(MINIMAL).encode()
FIELDS = [
    "id",
    "image_id",
    "category_id",
    "bbox",
    "segmentation",
    "iscrowd",
    "file_name",
    "width",
    "height",
    "name",
]
FIELDS += ["quality", "source", "trusted"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


# Codes and polygons that are nearly right, beside values that are nothing of the kind.
lengths = st.integers(-1, 3072) | st.floats(-1, 3072) | st.booleans() | st.just(1536.5)
segmentations = json_values | st.builds(
    lambda counts: {"size": [48, 64], "counts": counts},
    st.lists(lengths, max_size=3) | st.text("0PQo~", max_size=5),
)
segmentations |= st.lists(st.lists(lengths, min_size=5, max_size=9), max_size=2)


@pytest.mark.slow
@settings(derandomize=True, max_examples=200, deadline=None)
@given(segmentations)
def test_invalid_segmentations_raise_when_decoded(fuzzed, segmentation):
    content = json.loads(WHOLE)
    content["annotations"][-1]["segmentation"] = segmentation
    fuzzed.write_text(json.dumps(content))
    survives(fuzzed)
    del content["annotations"][-1]["bbox"]
    fuzzed.write_text(json.dumps(content))
    survives(fuzzed)


@pytest.mark.parametrize("counts", [[0, 96.5, 2975.5], [0, 96.0, 2976], [False, 96, 2976]])
def test_runs_that_are_not_whole_numbers_are_refused(tmp_path, counts):
    content = json.loads(WHOLE)
    content["annotations"][2]["segmentation"]["counts"] = counts
    data = read(tmp_path, content)
    with pytest.raises(BoxelError, match=r"annotation 4 \(image 7\) cannot be read \(a run of (96\.|False)"):
        data.mask(2)
    del content["annotations"][2]["bbox"]  # which would come from the mask
    data = read(tmp_path, content)
    assert data.ids == [3, 5] and [issue.kind for issue in data.issues] == ["bad-annotation"]


def survives(file):
    """Any file is read, or refused in one sentence."""
    try:
        data = coco.read(file)
    except BoxelError as error:
        assert str(error).startswith(str(file)) and "\n" not in str(error)
        return
    assert len(data.boxes) == len(data.ids) == len(data.labels) == len(data.segmentations)
    assert data.labels.size == 0 or 0 <= data.labels.min() <= data.labels.max() < len(data.categories)
    assert data.image_index.size == 0 or data.image_index.max() < len(data)
    for i in range(len(data.ids)):
        try:
            data.rle(i, (48, 64))
        except BoxelError as error:
            assert "\n" not in str(error)
    coco.write(data, file.with_name("again.json"))
    assert len(coco.read(file.with_name("again.json")).ids) == len(data.ids)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "hostile.json"


@pytest.mark.slow
@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.integers(0, len(WHOLE)), st.binary(max_size=4))
def test_truncated_or_garbled_files_are_refused(fuzzed, at, junk):
    fuzzed.write_bytes(WHOLE[:at] + junk)
    survives(fuzzed)
    fuzzed.write_bytes(WHOLE[:at] + junk + WHOLE[at + len(junk) :])
    survives(fuzzed)


@pytest.mark.slow
@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    st.sampled_from(["images", "annotations", "categories"]),
    st.sampled_from(
        [
            "id",
            "image_id",
            "category_id",
            "bbox",
            "segmentation",
            "iscrowd",
            "file_name",
            "width",
            "height",
            "name",
            "quality",
            "source",
            "trusted",
        ]
    ),
    json_values,
)
def test_wrong_types_cost_only_themselves(fuzzed, part, field, value):
    content = json.loads(WHOLE)
    content[part][-1][field] = value
    fuzzed.write_text(json.dumps(content))
    survives(fuzzed)
    content[part] = value
    fuzzed.write_text(json.dumps(content))
    survives(fuzzed)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"[" * 100_000,
        b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"images": [' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"]}",
        WHOLE.replace(b"90", b"9" * 6000),
        WHOLE.replace(b"10.0", b"1e999"),
        WHOLE.replace(b"10.0", b"1e18"),
        WHOLE.replace(b"[0, 96, 2976]", b"[0, 999999999999, 2]"),
        WHOLE.replace(b"[0, 96, 2976]", b'"\\u0000zz~~~"'),
        WHOLE.replace(b"[0, 96, 2976]", b'""'),
        WHOLE.replace(b'"width": 64', b'"width": 1e300'),
        WHOLE.replace(b'"a/one.jpg"', b'"\\u0000"'),
        WHOLE.replace(b"one", b"one" * 5000),
        '{"images": []}'.encode("utf-16"),
    ],
)
def test_malicious_content_costs_only_itself(fuzzed, content):
    fuzzed.write_bytes(content)
    survives(fuzzed)


def test_a_file_that_ends_in_a_string_of_escapes_is_refused_in_no_time(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [NaN, "' + '\\"' * 100_000)
    start = time.process_time()
    with pytest.raises(BoxelError, match="not a COCO dataset"):
        boxel.data.read(tmp_path / "a.json", format="coco")
    assert time.process_time() - start < 2


@pytest.mark.parametrize("encoding", ["gbk", "cp932", "latin-1"])
def test_class_names_that_are_not_utf8_are_refused(tmp_path, encoding):
    name = "größe" if encoding == "latin-1" else "熊猫"
    file = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [],
        "categories": [{"id": 1, "name": name}],
    }
    (tmp_path / "a.json").write_bytes(json.dumps(file, ensure_ascii=False).encode(encoding))
    with pytest.raises(BoxelError, match="not UTF-8"):
        boxel.data.read(tmp_path / "a.json")


def test_an_id_of_two_files_is_reported(tmp_path):
    names = ["a.jpg", "b.jpg", "a.jpg"]
    file = {
        "images": [{"id": 1, "file_name": name, "width": 9, "height": 9} for name in names],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(file))
    data = boxel.data.read(tmp_path / "a.json")
    (issue,) = data.issues
    assert (
        issue.kind == "ambiguous-image"
        and "a.jpg, to which its annotations go, and of b.jpg" in issue.message
    )
    assert data.image_index.tolist() == [0]


def test_category_ids_that_count_from_0_are_named(tmp_path):
    images = [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}]
    rows = [{"id": k, "image_id": 1, "category_id": k, "bbox": [0, 0, 4, 4]} for k in (0, 1)]
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    messages = {issue.kind: issue.message for issue in boxel.read(path).issues}
    assert "all are if 1 is added to each" in messages["category-numbering"]
    rows[1]["category_id"] = 2
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    assert [issue.kind for issue in boxel.read(path).issues] == ["unknown-category"]


def test_a_category_without_a_name_is_reported(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 6}]}))
    data = boxel.read(path)
    assert data.categories[0].name == "6"
    assert [issue.kind for issue in data.issues] == ["bad-field"] and "has no name" in data.issues[0].message


def test_folders_called_train_and_val_are_splits(tmp_path):
    path = tmp_path / "a.json"
    images = [{"id": k, "file_name": name} for k, name in enumerate(["train/a.jpg", "val/b.jpg"])]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    assert boxel.read(path).splits == ["train", "val"]
    images[0]["split"] = "test"
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    assert boxel.read(path).splits == ["test", None]


def test_a_list_of_results_is_not_taken_for_a_dataset(tmp_path):
    (tmp_path / "results.json").write_text(' [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]')
    with pytest.raises(
        BoxelError, match="a list, as COCO results are, and not a COCO dataset; give the file"
    ):
        boxel.data.read(tmp_path / "results.json", format="coco")

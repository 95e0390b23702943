"""Reading and writing LabelMe."""

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boxel.data
from boxel.cli import main
from boxel.data.formats import labelme
from boxel.utils.errors import BoxelError


def shape(points, label="cat", kind="polygon", **more):
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


TRIANGLE = [[10, 10], [30, 10], [30, 40]]


def make(folder, shapes, name="one", **more):
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "version": "5.4.1",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{name}.png",
        "imageData": None,
    }
    content |= {"imageHeight": 50, "imageWidth": 100, **more}
    (folder / f"{name}.json").write_text(json.dumps(content))
    Image.new("RGB", (100, 50)).save(folder / f"{name}.png")
    return folder


def test_shapes_become_boxes_and_polygons(tmp_path):
    make(tmp_path, [shape(TRIANGLE, "dog"), shape([[60, 40], [40, 20]], kind="rectangle")])
    for path in (tmp_path, tmp_path / "one.json"):
        data = boxel.data.read(path)
        assert data.image_ids == ["one"] and data.image_path(0) == tmp_path / "one.png"
        assert data.boxes.tolist() == [[10, 10, 30, 40], [40, 20, 60, 40]] and data.ids == ["one:1", "one:2"]
        assert data.has_mask.tolist() == [True, False] and data.segmentation(0) == [[10, 10, 30, 10, 30, 40]]
        assert [(c.id, c.name) for c in data.categories] == [
            (1, "cat"),
            (2, "dog"),
        ] and data.labels.tolist() == [1, 0]
        assert data.issues == []


def test_groups_are_parts_of_one_instance(tmp_path):
    far = [[50, 10], [60, 10], [60, 20]]
    shapes = [
        shape(TRIANGLE, group_id=3),
        shape(far, "dog", group_id=3),
        shape(far, group_id=3),
        shape([[5, 5], [70, 45]], kind="rectangle", group_id=4),
        shape(far, group_id=4),
    ]
    data = boxel.data.read(make(tmp_path, shapes))
    assert data.boxes.tolist() == [[10, 10, 60, 40], [50, 10, 60, 20], [5, 5, 70, 45]]
    assert data.segmentation(0) == [[10, 10, 30, 10, 30, 40], [50, 10, 60, 10, 60, 20]]


def test_circles_and_masks_become_masks(tmp_path):
    png = io.BytesIO()
    Image.fromarray(np.array([[1, 0], [1, 1]], dtype=bool)).save(png, "PNG")
    mask = base64.b64encode(png.getvalue()).decode()
    shapes = [shape([[50, 25], [50, 35]], kind="circle"), shape([[4, 6], [5, 7]], kind="mask", mask=mask)]
    data = boxel.data.read(make(tmp_path, shapes))
    np.testing.assert_allclose(data.boxes[0], [40, 15, 60, 35], atol=1e-3)
    assert data.mask(0).sum() == pytest.approx(np.pi * 100, rel=0.02)
    expected = np.zeros((50, 100), dtype=np.uint8)
    expected[6, 4] = expected[7, 4] = expected[7, 5] = 1
    np.testing.assert_array_equal(data.mask(1), expected)
    assert data.boxes[1].tolist() == [4, 6, 6, 8]


def test_sizes_come_from_the_image(tmp_path):
    data = boxel.data.read(make(tmp_path, [shape(TRIANGLE)], imageWidth=None))
    assert (data.widths[0], data.heights[0]) == (100, 50)


def test_image_paths_are_relative_to_the_folder(tmp_path):
    make(tmp_path / "json", [shape(TRIANGLE)], imagePath="..\\photos\\one.png")
    (tmp_path / "photos").mkdir()
    (tmp_path / "json/one.png").rename(tmp_path / "photos/one.png")
    assert boxel.data.read(tmp_path / "json").image_path(0).resolve() == tmp_path / "photos/one.png"
    assert boxel.data.read(tmp_path / "json", images=tmp_path / "x").image_path(0) == tmp_path / "x/one.png"


@pytest.mark.parametrize(
    "stated", ["C:\\Users\\x\\one.png", "/home/x/ONE.PNG", "gone/one.png", "IMG_1.jpg", "", 7]
)
def test_an_image_beside_its_file_is_found_whatever_the_file_states(tmp_path, stated):
    make(tmp_path / "train", [shape(TRIANGLE)], imagePath=stated)
    make(tmp_path / "val", [shape(TRIANGLE)], imagePath=stated)
    data = boxel.data.read(tmp_path)
    assert data.paths == ["train/one.png", "val/one.png"] and data.issues == []


def test_a_file_that_names_the_image_of_another_gets_its_own(tmp_path):
    make(tmp_path, [shape(TRIANGLE)])
    make(tmp_path, [shape(TRIANGLE)], "two", imagePath="one.png")
    data = boxel.data.read(tmp_path)
    assert data.paths == ["one.png", "two.png"]
    assert [issue.kind for issue in data.issues] == ["ambiguous-image"]
    (tmp_path / "two.png").unlink()
    data = boxel.data.read(tmp_path)
    assert data.paths == ["one.png", "two.png"]
    assert "two.json: it names one.png, which is the image of one" in data.issues[0].message


def test_nested_folders_are_recognized(tmp_path):
    make(tmp_path / "a/train", [shape(TRIANGLE)])
    make(tmp_path / "a/.cache", [shape(TRIANGLE)])
    make(tmp_path / "a/train", [shape(TRIANGLE)], "._one")
    (tmp_path / "a/train/config.json").write_text('{"labels": ["cat"]}')
    assert boxel.data.recognize(tmp_path) == "labelme"
    data = boxel.data.read(tmp_path)
    assert data.paths == ["a/train/one.png"] and "it has no shapes" in data.issues[0].message
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    assert boxel.data.recognize(tmp_path) == "coco"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_passed_over(tmp_path, encoding):
    make(tmp_path, [shape(TRIANGLE, "größe")])
    (tmp_path / "one.json").write_text((tmp_path / "one.json").read_text(), encoding=encoding)
    data = boxel.data.read(tmp_path)
    assert data.categories[0].name == "größe" and data.issues == []


def test_an_image_inside_the_file_is_reported(tmp_path):
    make(tmp_path, [shape(TRIANGLE)], imageWidth=None)
    pixels = base64.b64encode((tmp_path / "one.png").read_bytes()).decode()
    (tmp_path / "one.png").unlink()
    content = json.loads((tmp_path / "one.json").read_text()) | {"imageData": pixels}
    (tmp_path / "one.json").write_text(json.dumps(content))
    data = boxel.data.read(tmp_path)
    assert (data.widths[0], data.heights[0]) == (100, 50) and len(data.ids) == 1
    assert [issue.kind for issue in data.issues] == ["image-in-json"]


def test_four_corners_are_a_polygon(tmp_path):
    corners = [[20, 15], [60, 25], [50, 45], [10, 35]]
    shapes = [shape(corners, kind=kind) for kind in ("rotation", "quadrilateral")]
    square = [[5, 5], [9, 5], [9, 8], [5, 8]]
    data = boxel.data.read(make(tmp_path / "a", [*shapes, shape(square, kind="rectangle")]))
    assert data.has_mask.tolist() == [True, True, False]
    assert data.boxes.tolist() == [[10, 15, 60, 45]] * 2 + [[5, 5, 9, 8]]
    labelme.write(data, tmp_path / "b")
    written = json.loads((tmp_path / "b/one.json").read_text())["shapes"]
    assert [s["shape_type"] for s in written] == ["rotation", "quadrilateral", "rectangle"]


def test_a_mask_that_extends_past_the_image_is_cut(tmp_path):
    png = io.BytesIO()
    Image.fromarray(np.ones((4, 4), dtype=bool)).save(png, "PNG")
    mask = base64.b64encode(png.getvalue()).decode()
    data = boxel.data.read(make(tmp_path, [shape([[-2, 48], [1, 51]], kind="mask", mask=mask)]))
    assert np.argwhere(data.mask(0)).tolist() == [[48, 0], [48, 1], [49, 0], [49, 1]]


def test_unused_fields_are_carried_along(tmp_path):
    more = {"flags": {"blurred": True}, "description": "left", "difficult": False, "kie_linking": [[1, 2]]}
    shapes = [shape(TRIANGLE, **(more | {"group_id": 5})), shape([[1, 2], [9, 9]], kind="rectangle")]
    make(tmp_path / "a", shapes, flags={"night": True}, checked=True, version="5.4.1")
    data = boxel.data.read(tmp_path / "a")
    assert json.loads(data.extras[0]) == more | {"group_id": 5} and data.extras[1] is None
    assert json.loads(data.image_extras[0]) == {"version": "5.4.1", "flags": {"night": True}, "checked": True}
    labelme.write(data, tmp_path / "b")
    content = json.loads((tmp_path / "b/one.json").read_text())
    assert content["flags"] == {"night": True} and content["checked"] and content["version"] == "5.4.1"
    assert content["shapes"][0].items() >= (more | {"group_id": 5}).items()
    again = boxel.data.read(tmp_path / "b")
    assert again.extras.tolist() == data.extras.tolist()
    assert json.loads(again.image_extras[0]) == json.loads(data.image_extras[0])


@pytest.mark.parametrize("with_ids", [True, False])
@settings(derandomize=True, max_examples=15, deadline=None)
@given(draw=st.data())
def test_everything_but_exact_masks_survives(draw_random, tmp_path_factory, with_ids, draw):
    folder = tmp_path_factory.mktemp("random")
    data = draw_random(draw, folder / "in")
    (folder / "out").mkdir()
    labelme.write(data, folder / "out")
    if not with_ids:
        (folder / "out/boxel-ids.json").unlink()
    found = boxel.data.read(folder / "out", format="labelme")
    assert found.image_ids == data.image_ids and found.ids == data.ids and found.splits == data.splits
    for name in ("iscrowd", "trusted", "source"):
        assert getattr(found, name).tolist() == getattr(data, name).tolist(), name
    for name in ("boxes", "quality", "areas"):
        np.testing.assert_allclose(getattr(found, name), getattr(data, name), atol=1e-6, err_msg=name)
    assert found.has_segmentation.tolist() == data.has_segmentation.tolist()
    for name in ("extras", "image_extras"):
        for mine, theirs in zip(getattr(found, name), getattr(data, name), strict=True):
            assert json.loads(mine or "{}") == json.loads(theirs or "{}")
    if with_ids:
        assert found.categories == data.categories and found.dataset_extras == data.dataset_extras


@pytest.fixture
def three(tmp_path):
    """A folder that boxel wrote: three objects with masks and what is known of them."""
    shapes = [
        shape([[x, 10], [x + 20, 10], [x + 20, 40]], label) for x, label in ((5, "a"), (35, "b"), (65, "a"))
    ]
    data = boxel.data.read(make(tmp_path / "a", shapes))
    data = replace(
        data, ids=[31, 12, 23], quality=[0.5, 0.75, 1], source=["sam"] * 3, trusted=[True, False, True]
    )
    boxel.data.write(data, tmp_path / "b", "labelme")
    return tmp_path / "b"


def edit(folder, change):
    content = json.loads((folder / "one.json").read_text())
    change(content["shapes"])
    (folder / "one.json").write_text(json.dumps(content))


@pytest.mark.parametrize("with_ids", [True, False])
def test_deleting_a_shape_shifts_no_id(three, caplog, with_ids):
    edit(three, lambda shapes: shapes.pop(0))
    if not with_ids:
        (three / "boxel-ids.json").unlink()
    with caplog.at_level("INFO"):
        data = boxel.data.read(three)
    assert (
        data.ids == [12, 23] and data.quality.tolist() == [0.75, 1] and data.trusted.tolist() == [False, True]
    )
    assert ("2 annotations matched, 0 new, 1 gone" in caplog.text) == with_ids


@pytest.mark.parametrize("with_ids", [True, False])
def test_a_new_shape_gets_an_id_that_no_other_has_or_had(three, with_ids):
    def change(shapes):
        shapes[0] = shape([[1, 1], [9, 1], [9, 9]], "b")  # 31 is gone

    edit(three, change)
    if not with_ids:
        (three / "boxel-ids.json").unlink()
    assert boxel.data.read(three).ids == ([32, 12, 23] if with_ids else [24, 12, 23])


def test_a_copied_shape_leaves_its_id_to_the_original(three):
    def change(shapes):
        copy = json.loads(json.dumps(shapes[1]))
        shapes.insert(0, copy | {"points": [[x + 3, y] for x, y in copy["points"]]})

    edit(three, change)
    data = boxel.data.read(three)
    assert data.ids == [32, 31, 12, 23] and data.source.tolist() == [None, "sam", "sam", "sam"]
    assert data.trusted.tolist() == [True, True, False, True]


def test_an_edited_mask_is_the_users(three):
    edit(three, lambda shapes: shapes[1]["points"][0].__setitem__(0, 38))
    data = boxel.data.read(three)
    assert data.ids == [31, 12, 23] and data.source.tolist() == ["sam", None, "sam"]
    assert data.trusted.all() and np.isnan(data.quality).tolist() == [False, True, False]
    assert data.boxes[1].tolist() == [38, 10, 55, 40]


def test_a_copied_file_leaves_the_ids_to_the_original(three):
    (three / "a_copy.json").write_text((three / "one.json").read_text())
    Image.new("RGB", (100, 50)).save(three / "a_copy.png")
    data = boxel.data.read(three)
    assert data.image_ids == ["a_copy", "one"] and data.ids == [32, 33, 34, 31, 12, 23]


def test_a_renamed_file_keeps_its_ids(tmp_path):
    data = replace(boxel.data.read(make(tmp_path / "a", [shape(TRIANGLE)])), ids=[31], image_ids=[8])
    boxel.data.write(data, tmp_path / "b", "labelme")
    for suffix in ("json", "png"):
        (tmp_path / f"b/one.{suffix}").rename(tmp_path / f"b/new.{suffix}")
    found = boxel.data.read(tmp_path / "b")
    assert found.paths == ["new.png"] and found.image_ids == [8] and found.ids == [31] and found.issues == []


def test_shapes_whose_keys_another_tool_dropped_are_found_by_geometry(three):
    def change(shapes):
        shapes[:] = [
            {key: s[key] for key in ("label", "points", "group_id", "shape_type", "flags")}
            for s in shapes[1:]
        ]

    edit(three, change)
    data = boxel.data.read(three)
    assert data.ids == [12, 23] and data.quality.tolist() == [0.75, 1]


@pytest.mark.parametrize(
    "bad",
    [
        shape(TRIANGLE, kind="line"),
        shape([[1, 2]], kind="point"),
        shape(TRIANGLE[:2]),
        shape([[1, 2, 3]] * 3),
        shape([[1, 2]], kind="rectangle"),
        shape([[1, 2]], kind="circle"),
        shape([[1, 2]], kind="mask", mask="!!"),
        {"label": "cat"},
        "cat",
    ],
)
def test_an_invalid_shape_costs_only_itself(tmp_path, bad):
    data = boxel.data.read(make(tmp_path, [bad, shape(TRIANGLE)]))
    assert data.boxes.tolist() == [[10, 10, 30, 40]]
    assert [issue.kind for issue in data.issues] == ["bad-annotation"]


@pytest.mark.parametrize("mask", ["!!", None])
def test_an_invalid_mask_costs_only_the_mask(tmp_path, mask):
    data = boxel.data.read(make(tmp_path, [shape([[1, 2], [3, 4]], kind="mask", mask=mask), shape(TRIANGLE)]))
    assert data.boxes.tolist() == [[1, 2, 3, 4], [10, 10, 30, 40]] and data.has_mask.tolist() == [False, True]
    assert [(issue.kind, issue.repair) for issue in data.issues] == [
        ("mask-invalid", "mask left out, box kept")
    ]


def test_an_invalid_file_costs_only_itself(tmp_path):
    make(tmp_path, [shape(TRIANGLE)])
    (tmp_path / "bad.json").write_text('{"shapes": [')
    data = boxel.data.read(tmp_path)
    assert data.image_ids == ["one"] and [issue.kind for issue in data.issues] == ["bad-file"]


def test_round_trip(tmp_path):
    parts = [shape(TRIANGLE, group_id=3), shape([[50, 10], [60, 10], [60, 20]], group_id=3)]
    data = boxel.data.read(make(tmp_path / "a", [*parts, shape([[40, 20], [60, 40]], "dog", "rectangle")]))
    assert labelme.write(data, tmp_path / "b") == []
    again = boxel.data.read(tmp_path / "b")
    assert again.boxes.tolist() == data.boxes.tolist() and again.ids == data.ids
    assert again.segmentations.tolist() == data.segmentations.tolist() and again.categories == data.categories
    assert (tmp_path / "b/one.png").samefile(tmp_path / "a/one.png")


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("../" * 50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=8,
)
FIELDS = [
    "shapes",
    "imagePath",
    "imageWidth",
    "imageHeight",
    "label",
    "points",
    "shape_type",
    "group_id",
    "mask",
]


@pytest.mark.slow
@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.sampled_from(FIELDS), values)
def test_wrong_types_cost_only_themselves(fuzzed, field, value):
    make(fuzzed, [shape(TRIANGLE)])
    content = json.loads((fuzzed / "one.json").read_text())
    (content if field in FIELDS[:4] else content["shapes"][0])[field] = value
    (fuzzed / "one.json").write_text(json.dumps(content))
    survives(fuzzed)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(st.integers(0, 250), st.binary(max_size=4))
def test_truncated_or_garbled_files_are_refused(fuzzed, at, junk):
    make(fuzzed, [shape(TRIANGLE)])
    whole = (fuzzed / "one.json").read_bytes()
    for content in (whole[:at] + junk, whole[:at] + junk + whole[at + len(junk) :]):
        (fuzzed / "one.json").write_bytes(content)
        survives(fuzzed)


@pytest.mark.parametrize("content", [b"", b"[" * 100_000, b'{"shapes": ' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_malicious_content_costs_only_itself(fuzzed, content):
    (fuzzed / "one.json").write_bytes(content)
    survives(fuzzed)


def survives(folder):
    try:
        data = labelme.read(folder)
    except BoxelError as error:
        assert str(error).startswith(str(folder)) and "\n" not in str(error)
        return
    assert len(data) == 1 and len(data.boxes) == len(data.labels) == len(data.ids)
    assert "\n" not in "".join(issue.message for issue in data.issues)
    labelme.write(data, folder.parent / "fuzz-out")


def test_ids_survive_an_edit_between_two_conversions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (100, 50)).save("one.png")
    rows = [
        {"id": id, "image_id": 7, "category_id": 4, "bbox": [x, 10, 20, 30], "area": 600, "iscrowd": 0}
        for id, x in ((31, 5), (12, 35), (23, 65))
    ]
    rows[2] |= {"quality": 0.5, "source": "sam", "trusted": False, "track_id": 9}
    rows[2]["segmentation"] = [[65, 10, 85, 10, 85, 40]]
    image = {"id": 7, "file_name": "one.png", "width": 100, "height": 50, "coco_url": "http://x"}
    content = {"images": [image], "annotations": rows, "categories": [{"id": 4, "name": "cat"}]}
    (tmp_path / "in.json").write_text(json.dumps(content))
    assert main(["convert", "in.json", "out", "--to", "labelme"]) == 0
    edit(tmp_path / "out", lambda shapes: shapes.pop(0))
    assert main(["convert", "out", "back.json"]) == 0
    back = json.loads((tmp_path / "back.json").read_text())
    assert back["annotations"] == rows[1:] and back["categories"] == content["categories"]
    assert back["images"] == [image]
    assert "2 annotations matched, 0 new, 1 gone" in "".join(capsys.readouterr())


def test_files_may_lie_in_any_depth(tmp_path):
    folder = tmp_path / "a/b/c/d/e/f"
    folder.mkdir(parents=True)
    Image.new("RGB", (20, 10)).save(folder / "1.png")
    shape = {"label": "cat", "shape_type": "rectangle", "points": [[1, 2], [5, 6]]}
    content = {"shapes": [shape], "imagePath": "C:\\photos\\other.png", "imageHeight": 10, "imageWidth": 20}
    (folder / "1.json").write_text(json.dumps(content))
    data = boxel.data.read(tmp_path)
    assert data.image_path(0) == folder / "1.png" and data.boxes.tolist() == [[1, 2, 5, 6]]

"""Reading and writing LabelMe."""

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boxel.data
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
    assert boxel.data.read(tmp_path / "json").image_path(0).resolve() == tmp_path / "photos/one.png"
    assert boxel.data.read(tmp_path / "json", images=tmp_path / "x").image_path(0) == tmp_path / "x/one.png"


@pytest.mark.parametrize(
    "bad",
    [
        shape(TRIANGLE, kind="line"),
        shape([[1, 2]], kind="point"),
        shape(TRIANGLE[:2]),
        shape([[1, 2, 3]] * 3),
        shape([[1, 2]], kind="rectangle"),
        shape([[1, 2]], kind="circle"),
        shape([[1, 2], [3, 4]], kind="mask", mask="!!"),
        shape([[1, 2], [3, 4]], kind="mask"),
        {"label": "cat"},
        "cat",
    ],
)
def test_an_invalid_shape_costs_only_itself(tmp_path, bad):
    data = boxel.data.read(make(tmp_path, [bad, shape(TRIANGLE)]))
    assert data.boxes.tolist() == [[10, 10, 30, 40]]
    assert [issue.kind for issue in data.issues] == ["bad-annotation"]


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

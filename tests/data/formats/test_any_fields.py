"""Fields that boxel does not use come back from every format as they were, whatever they hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import boxel.data
from boxel.data import Annotations, Category
from boxel.data.formats.extras import as_objects

FORMATS = ["coco", "parquet", "cvat", "label-studio", "fiftyone", "labelme", "voc", "yolo", "sbd", "darknet"]
OWN_KEYS = [
    *(
        "attributes",
        "cvat",
        "label_studio",
        "fiftyone",
        "tags",
        "flags",
        "description",
        "group_id",
        "z_order",
    ),
    *("occluded", "pose", "truncated", "difficult", "part", "labels", "keypoints", "num_keypoints", "label"),
    *("points", "shape_type", "name", "data", "type", "own", "written", "note"),
]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
plain = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-2, 2, width=16), texts)
values = st.recursive(
    plain, lambda v: st.one_of(st.lists(v, max_size=2), st.dictionaries(texts, v, max_size=2)), max_leaves=4
)
fields = st.dictionaries(st.sampled_from(OWN_KEYS), values, max_size=4)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields, fields)
def test_fields_come_back(format, tmp_path_factory, extras, image_extras):
    folder = tmp_path_factory.mktemp("fields")
    data = one_object(folder, extras, image_extras)
    path = folder / ("out.json" if format == "coco" else "out.parquet" if format == "parquet" else "out")
    boxel.data.write(data, path, format)
    back = boxel.data.read(path)
    assert json.loads(back.extras[0] or "{}") == extras
    assert json.loads(back.image_extras[0] or "{}") == image_extras


def one_object(folder, extras, image_extras):
    """Return a dataset of one image and one object with these fields."""
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    return Annotations(
        root=folder,
        image_ids=[1],
        paths=["a.png"],
        widths=np.array([40]),
        heights=np.array([30]),
        categories=(Category(1, "cat"),),
        ids=[5],
        image_index=np.zeros(1, np.int32),
        labels=np.zeros(1, np.int32),
        boxes=np.array([[4.0, 4, 12, 12]]),
        iscrowd=np.array([False]),
        segmentations=as_objects([b"[[4,4,12,4,12,12]]"]),
        trusted=np.array([True]),
        extras=as_objects([json.dumps(extras).encode() if extras else None]),
        image_extras=[json.dumps(image_extras).encode() if image_extras else None],
    )

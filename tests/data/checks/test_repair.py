"""Whatever is wrong with a dataset, its repaired copy has no issues and is consistent."""

import copy
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from boxel.data.annotations import Category
from boxel.data.checks import RepairRecord, check, repair, repair_with_record, undo_repair
from boxel.masks.rle import encode


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """Images of 100 x 80 stored pixels: valid, rotated by EXIF, truncated, empty."""
    folder = tmp_path_factory.mktemp("mixed")
    for orientation in (1, 3, 5, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (100, 80)).save(folder / f"turned{orientation}.jpg", exif=exif)
    (folder / "cut.jpg").write_bytes((folder / "turned1.jpg").read_bytes()[:400])
    (folder / "empty.jpg").touch()
    return folder


FILES = [f"turned{o}.jpg" for o in (1, 1, 3, 5, 6, 8)] + ["cut.jpg", "empty.jpg", "gone.jpg"]
MASK = np.zeros((80, 100), dtype=np.uint8)
MASK[10:40, 20:60] = 1

edges = st.one_of(
    st.sampled_from([0.0, 10.0, 20.0, 60.0, 80.0, 100.0, -50.0, 300.0, 1e308, float("nan"), float("-inf")]),
    st.floats(-20, 120),
)
segmentations = st.one_of(
    st.none(),
    st.sampled_from(
        [encode(MASK), encode(MASK.T), encode(0 * MASK), {"size": [80, 100], "counts": "P"}, b"{", []]
    ),
    st.lists(st.lists(st.floats(-10, 120), min_size=0, max_size=9), max_size=3),
)
instances = st.tuples(
    st.tuples(edges, edges, edges, edges),
    segmentations,
    st.integers(-1, 4),  # image
    st.integers(-1, 3),  # label
    st.sampled_from([1, 2, 3, "2", "x"]),  # id
    st.sampled_from([None, "a model"]),
)
images = st.tuples(
    st.sampled_from([1, 2, "a"]),
    st.sampled_from(FILES),
    st.sampled_from([(100, 80), (80, 100), (0, 0), (7, 300)]),
)


@pytest.mark.slow
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(instances, max_size=8), st.lists(images, min_size=1, max_size=4), st.sets(st.integers(0, 2)))
def test_a_repaired_dataset_has_no_issues_and_repair_is_idempotent(
    make, folder, rows, photos, distinct
) -> None:
    boxes, masks, image_index, labels, ids, source = zip(*rows, strict=True) if rows else [[]] * 6
    data = make(
        boxes,
        list(masks),
        root=folder,
        image_index=image_index,
        labels=labels,
        ids=list(ids),
        source=np.array([*source, None], dtype=object)[:-1],
        image_ids=[id for id, _, _ in photos],
        paths=[path for _, path, _ in photos],
        widths=[size[0] for _, _, size in photos],
        heights=[size[1] for _, _, size in photos],
        categories=tuple(Category(i, "thing" if i in distinct else f"thing {i}") for i in range(3)),
    )
    repaired, issues = repair(data)
    assert issues == check(data)
    assert [issue for issue in check(repaired) if issue.repair] == []

    again, _ = repair(repaired)
    for column in fields(repaired):
        before, after = getattr(repaired, column.name), getattr(again, column.name)
        if column.name != "issues":
            np.testing.assert_equal(after, before, err_msg=column.name)

    n = len(repaired.ids)
    assert len(set(repaired.ids)) == n
    assert len(set(repaired.image_ids)) == len(repaired)
    assert all(
        len(getattr(repaired, name)) == n for name in ("boxes", "segmentations", "image_index", "labels")
    )
    if n:
        limits = np.stack([repaired.widths, repaired.heights] * 2, axis=1)[repaired.image_index]
        known = limits[:, 0] > 0
        assert (repaired.boxes >= 0).all() and (repaired.boxes <= limits)[known].all()
        assert (repaired.boxes[:, 2:] - repaired.boxes[:, :2] >= 2).all()
    for i in range(n):
        image = repaired.image_index[i]
        if repaired.widths[image] > 0:
            repaired.rle(i)  # every mask left can be read
    identified = set(data.ids)
    assert all(issue.annotation_id in identified for issue in issues if issue.annotation_id is not None)


def test_repair_does_not_change_the_original(make) -> None:
    data = make([(50, 10, 10, 140), (10, 10, 10, 10)], [b"{", None], ids=[1, 1], widths=[7, 7])
    before = copy.deepcopy(data)
    repair(data)
    for column in fields(data):
        np.testing.assert_equal(getattr(data, column.name), getattr(before, column.name))


def test_real_images_have_no_issues(shared_data) -> None:
    from boxel.data.formats import read

    data = read(shared_data / "coco" / "val_masks.json")
    assert check(data) == []


@pytest.mark.slow
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(instances, max_size=8),
    st.lists(images, min_size=1, max_size=4),
    st.sets(st.integers(0, 2)),
    st.lists(
        st.sampled_from([None, b'{"attributes":{"rotation":30.0}}', b'{"track_id":1}']),
        min_size=8,
        max_size=8,
    ),
)
def test_an_undone_repair_is_the_original(
    make, folder, tmp_path_factory, rows, photos, distinct, extras
) -> None:
    boxes, masks, image_index, labels, ids, source = zip(*rows, strict=True) if rows else [[]] * 6
    data = make(
        boxes,
        list(masks),
        root=folder,
        image_index=image_index,
        labels=labels,
        ids=list(ids),
        source=np.array([*source, None], dtype=object)[:-1],
        extras=np.array([*extras[: len(rows)], None], dtype=object)[:-1],
        image_ids=[id for id, _, _ in photos],
        paths=[path for _, path, _ in photos],
        widths=[size[0] for _, _, size in photos],
        heights=[size[1] for _, _, size in photos],
        splits=["train", None, "val", "test"][: len(photos)],
        categories=tuple(Category(i, "thing" if i in distinct else f"thing {i}") for i in range(3)),
    )
    repaired, issues, record = repair_with_record(data)
    file = tmp_path_factory.getbasetemp() / "record.json"
    record.write(file)
    again = RepairRecord.read(file)
    assert again == record and len(record.issues) == len(issues)
    original, lost = undo_repair(repaired, again)
    assert lost == []
    for column in fields(data):
        if column.name != "issues":
            before, after = getattr(data, column.name), getattr(original, column.name)
            np.testing.assert_equal(after, before, err_msg=column.name)

"""`boxel.label`: its inputs, what it refuses, and the files that it writes."""

import json
import sys
import warnings

import numpy as np
import pytest

import boxel
from boxel.data.formats import ConversionWarning
from boxel.labeling import api as module
from boxel.labeling import target as target_module
from boxel.labeling.api import label, label_data
from boxel.labeling.config import LabelConfig
from boxel.labeling.teachers import make_teacher
from boxel.masks.rle import decode
from boxel.utils.errors import BoxelError, UsageError


def test_in_memory_nothing_is_written(make_set, tmp_path, monkeypatch):
    data = make_set(2)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    masks = label(data, teacher="ellipse")
    assert masks.has_mask.all() and not data.has_segmentation.any()
    assert sorted(tmp_path.rglob("*")) == before


def test_data_may_be_a_path_of_any_format(make_set, tmp_path):
    data = make_set(2)
    boxel.write(data, tmp_path / "yolo", "yolo")
    from_coco, from_yolo = (
        label(path, teacher="rectangle") for path in (tmp_path / "set" / "boxes.json", tmp_path / "yolo")
    )
    assert from_yolo.ids == from_coco.ids and from_yolo.has_mask.all()
    for k in range(4):
        np.testing.assert_array_equal(from_yolo.mask(k), from_coco.mask(k))


def test_images_may_lie_in_another_folder(make_set, tmp_path):
    make_set(1)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "boxes.json").rename(tmp_path / "elsewhere" / "boxes.json")
    masks = label(tmp_path / "elsewhere" / "boxes.json", images=tmp_path / "set", teacher="rectangle")
    assert masks.has_mask.all()


def test_teachers_by_name_by_settings_or_as_objects(make_set):
    data = make_set(1)
    mine = make_teacher("rectangle", [])
    mine.name = "mine"
    for options, source in [
        ({"teacher": "ellipse"}, "ellipse"),
        ({"teacher": ["ellipse", "rectangle"]}, "ellipse+rectangle"),
        ({"teacher": mine}, "mine"),
        ({"teacher": [mine, "ellipse"]}, "mine+ellipse"),
        ({"config": {"teachers": ["rectangle"]}}, "rectangle"),
        ({"config": LabelConfig(teachers=["rectangle"]), "teacher": "ellipse"}, "ellipse"),
        ({"teachers": ["rectangle"]}, "rectangle"),
    ]:
        assert set(label(data, **options).source) == {source}


def test_the_default_teacher_is_boxcaseg(make_set, monkeypatch):
    asked = []

    def stand_in(name, categories, device, *options):
        asked.append((name, [category.name for category in categories], device))
        return make_teacher("ellipse", categories)

    monkeypatch.setattr(module, "make_teacher", stand_in)
    label(make_set(1), device="cpu")
    assert asked == [("boxcaseg", ["disc", "corner"], "cpu")]


def test_settings_are_applied(make_set):
    data = make_set(1)
    assert label(data, teacher="rectangle", drop=0.9).trusted.tolist() == [True, True]
    # Of the corner's box (30 x 20) the disc's (from (22, 12) on) covers the last corner only.
    apart = label(data, teacher="rectangle", merge="none")
    assert apart.mask(1).sum() == 600 and label(data, teacher="rectangle").mask(1).sum() == 600 - 64
    with pytest.raises(BoxelError, match=r"no setting 'mergee'.* Did you mean 'merge'\?"):
        label(data, teacher="rectangle", mergee=False)


def test_existing_files_are_not_overwritten(make_set, tmp_path):
    make_set(1)
    boxes = tmp_path / "set" / "boxes.json"
    before = boxes.read_bytes()
    with pytest.raises(UsageError, match=r"boxes\.json: this is the file of the boxes"):
        label(boxes, out=boxes, teacher="ellipse")
    precious = tmp_path / "masks.json"
    precious.write_text("{}")
    with pytest.raises(
        UsageError,
        match=r"masks\.json: this file exists, and the record of its job, .*masks\.sqlite, is not there",
    ):
        label(boxes, out=precious, teacher="ellipse")
    with pytest.raises(UsageError, match=r"masks: the masks are a COCO file"):
        label(boxes, out=tmp_path / "masks", teacher="ellipse")
    assert precious.read_text() == "{}" and boxes.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks.json", "set"]


def test_issues_of_the_file_are_logged(make_set, tmp_path, logged):
    make_set(1)
    path = tmp_path / "set" / "boxes.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"id": 77, "image_id": 55, "category_id": 3, "bbox": [0, 0, 1, 1]})
    path.write_text(json.dumps(content))
    outcome = label_data(path, teacher="ellipse")
    assert len(outcome.data.labels) == 2 and "annotation 77" in logged[0]


def test_other_formats_are_written_beside_the_masks(make_set, tmp_path):
    data, out = make_set(3), tmp_path / "out" / "masks.json"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        made = label_data(data, out=out, to=["yolo", "voc", "labelme"], teacher="rectangle").data
    names = {"masks.json", "masks.sqlite", "masks_yolo", "masks_voc", "masks_labelme"}
    assert {path.name for path in out.parent.iterdir()} == names
    for format in ("yolo", "voc", "labelme"):
        again = boxel.read(out.parent / f"masks_{format}")
        assert again.ids == made.ids and again.has_mask.all()
        for k in range(6):
            a, b = again.mask(k), decode(made.rle(k))
            assert (a & b).sum() / (a | b).sum() > 0.95


def test_folders_of_the_job_are_replaced_and_others_refused(make_set, tmp_path, monkeypatch):
    out = tmp_path / "out" / "masks.json"
    options = {"out": out, "teacher": "ellipse"}
    theirs = out.parent / "masks_yolo"
    theirs.mkdir(parents=True)
    (theirs / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="masks_yolo: this folder exists already"):
        label_data(make_set(2), to=["yolo"], **options)
    assert list(out.parent.iterdir()) == [theirs] and (theirs / "notes.txt").read_text() == "mine"
    with pytest.raises(UsageError, match=r"masks cannot be written as 'yollo'.* Did you mean 'yolo'\?"):
        label_data(make_set(2), to=["yollo"], **options)
    with pytest.raises(UsageError, match="there is no `out`"):
        label_data(make_set(2), to=["yolo"], teacher="ellipse")

    (theirs / "notes.txt").unlink()
    theirs.rmdir()
    write = target_module.write_as_given

    def breaks(data, path, format=None):
        if format == "yolo":
            raise KeyboardInterrupt
        write(data, path, format)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        monkeypatch.setattr(target_module, "write_as_given", breaks)
        with pytest.raises(KeyboardInterrupt):
            label_data(make_set(2), to=["yolo"], **options)
        monkeypatch.setattr(target_module, "write_as_given", write)
        assert not theirs.exists() and out.exists()
        label_data(make_set(2), to=["yolo"], **options)
        assert len(boxel.read(theirs)) == 2
        label_data(make_set(4), to=["yolo"], **options)
    assert len(boxel.read(theirs)) == 4 and boxel.read(theirs).has_mask.all()
    assert not list(out.parent.glob(".*"))


def test_sbd_without_scipy_is_refused_before_labeling(make_set, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(BoxelError, match=r"writing SBD needs scipy, .* pip install 'boxel\[mat\]'"):
        label_data(make_set(1), out=tmp_path / "out" / "masks.json", to=["sbd"], teacher="ellipse")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_masks_of_real_images(shared_data):
    """GrabCut from the ellipse has a plausible mask IoU."""
    data = boxel.read(shared_data / "coco/val_masks.json", images=shared_data / "coco/images")
    data = data.select_images(range(8))
    made = label(data.without_masks(), teacher="grabcut-ellipse")
    sides = (data.boxes[:, 2:] - data.boxes[:, :2]).min(axis=1)
    ious = []
    for k in np.flatnonzero(~data.iscrowd & (sides >= 16)):
        a, b = made.mask(k), data.mask(k)
        ious.append((a & b).sum() / (a | b).sum())
    assert len(ious) > 20 and np.mean(ious) > 0.5
    assert not made.has_segmentation[data.iscrowd].any()


def test_an_unknown_teacher_leaves_no_file_behind(make_set, tmp_path):
    with pytest.raises(BoxelError, match="there is no teacher 'elipse'"):
        label(make_set(1), teacher="elipse", out=tmp_path / "masks.json")
    assert not list(tmp_path.glob("masks*"))

"""Other programs read what boxel writes; each test skips if the program is not installed."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import boxel
from boxel.data import Annotations, ConversionWarning
from boxel.data.formats.voc import CLASSES
from boxel.data.synthetic import write_scenes


@pytest.fixture
def scenes(tmp_path) -> Annotations:
    return write_scenes(tmp_path / "scenes", 3, height=96, width=128, seed=1)


@pytest.fixture
def written(scenes, tmp_path):
    def write(format, data=scenes):
        target = tmp_path / (f"{format}.json" if format == "coco" else format)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConversionWarning)
            boxel.write(data, target, format)
        return target

    return write


def masks_by_image(data: Annotations):
    return {
        data.paths[i].rpartition("/")[2]: [data.mask(k) for k in data.instances_in(i)]
        for i in range(len(data))
    }


def mean_iou(expected, found) -> float:
    """The mean over true masks of the best IoU with the masks that were found."""
    ious = [max((m & f).sum() / (m | f).sum() for f in found) for m in np.asarray(expected, dtype=bool)]
    return float(np.mean(ious))


def test_pycocotools_reads_coco(scenes, written):
    official = COCO(written("coco"))
    assert official.getImgIds() == scenes.image_ids
    for i, id in enumerate(scenes.ids):
        np.testing.assert_array_equal(official.annToMask(official.anns[id]), scenes.mask(i))


@pytest.mark.parametrize("format", ["coco", "yolo", "voc"])
def test_supervision_reads(scenes, written, format):
    supervision = pytest.importorskip("supervision")
    target = written(format)
    dataset = {
        "coco": lambda: supervision.DetectionDataset.from_coco(
            str(scenes.root), str(target), force_masks=True
        ),
        "yolo": lambda: supervision.DetectionDataset.from_yolo(
            str(target / "images"), str(target / "labels"), str(target / "data.yaml"), force_masks=True
        ),
        "voc": lambda: supervision.DetectionDataset.from_pascal_voc(
            str(target / "JPEGImages"), str(target / "Annotations")
        ),
    }[format]()
    assert len(dataset) == len(scenes) and set(dataset.classes) == {c.name for c in scenes.categories}
    expected = masks_by_image(scenes)
    for path, _, detections in dataset:
        truth = expected[path.replace("\\", "/").rpartition("/")[2]]
        assert len(detections) == len(truth)
        if format != "voc" and truth:
            assert mean_iou(truth, detections.mask) > 0.85  # it rounds vertices to pixels


def test_supervision_reads_oriented_boxes(scenes, written):
    supervision = pytest.importorskip("supervision")
    target = written("yolo-obb")
    places = [str(target / name) for name in ("images", "labels", "data.yaml")]
    dataset = supervision.DetectionDataset.from_yolo(*places, is_obb=True)
    truth = boxel.read(target)
    corners = {
        truth.paths[i].rpartition("/")[2]: [
            json.loads(truth.extras[k] or "{}").get("corners") for k in truth.instances_in(i)
        ]
        for i in range(len(truth))
    }
    for path, _, detections in dataset:
        found = detections.data.get("xyxyxyxy", [])
        expected = corners[path.replace("\\", "/").rpartition("/")[2]]
        assert len(found) == len(expected)
        for points, stated in zip(found, expected, strict=True):
            if stated is not None:
                np.testing.assert_allclose(points, stated, atol=1)


@pytest.mark.parametrize(
    ("to", "file"), [("coco", "result.json"), ("yolo", "classes.txt"), ("voc", "Annotations")]
)
def test_label_studios_converter_turns_tasks_into_other_formats(scenes, written, tmp_path, to, file):
    converter = pytest.importorskip("label_studio_sdk.converter")
    data = scenes.without_masks()
    target = written("label-studio", data)
    tasks = json.loads((target / "tasks.json").read_text())
    for task in tasks:
        task["annotations"] = task.pop("predictions")  # it converts what annotators have submitted
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    config = (target / "label_config.xml").read_text()
    reader = converter.Converter(config, str(tmp_path), download_resources=False)
    getattr(reader, f"convert_to_{to}")(str(tmp_path / "tasks.json"), str(tmp_path / "out"), is_dir=False)
    assert (tmp_path / "out" / file).exists()
    if to == "coco":
        boxes = [a["bbox"] for a in json.loads((tmp_path / "out" / file).read_text())["annotations"]]
        np.testing.assert_allclose(
            np.add(np.array(boxes)[:, :2], np.array(boxes)[:, 2:]), data.boxes[:, 2:], atol=0.1
        )
    elif to == "yolo":
        lines = [len(f.read_text().splitlines()) for f in (tmp_path / "out/labels").glob("*.txt")]
        assert sum(lines) == len(data.ids)


@pytest.mark.parametrize("format", ["coco", "cvat"])
def test_fiftyone_reads_other_formats(scenes, written, format):
    fiftyone = pytest.importorskip("fiftyone")
    data = scenes.without_masks() if format != "coco" else scenes  # of CVAT it reads no masks
    target, types = written(format, data), fiftyone.types
    places = {
        "coco": {"dataset_type": types.COCODetectionDataset, "data_path": str(scenes.root),
                 "labels_path": str(target), "label_types": "segmentations"},
        "cvat": {"dataset_type": types.CVATImageDataset, "data_path": str(target / "images"),
                 "labels_path": str(target / "annotations.xml")},
    }  # fmt: skip
    dataset = fiftyone.Dataset.from_dir(**places[format])
    counts = [
        len(value.detections if "detections" in value.field_names else value.polylines)
        for sample in dataset
        for name in sample.field_names
        if (value := sample[name]).__class__.__name__ in ("Detections", "Polylines")
    ]
    assert len(dataset) == len(scenes) and sum(counts) == len(scenes.ids)
    dataset.delete()


def test_ultralytics_takes_every_label_file(scenes, written):
    utils = pytest.importorskip("ultralytics.data.utils")
    target = written("yolo")
    for image in sorted((target / "images").rglob("*.*")):
        label = target / "labels" / image.relative_to(target / "images").with_suffix(".txt")
        args = (str(image), str(label), "", False, len(scenes.categories), 0, 0, False)
        *_, segments, _, missing, found, empty, corrupt, message = utils.verify_image_label(args)
        assert (missing, found, empty, corrupt) == (0, 1, 0, 0), message
        assert len(segments) == len(label.read_text().splitlines())


@pytest.mark.parametrize(
    ("format", "name"),
    [("coco", "coco_instances"), ("yolo", "yolo"), ("voc", "voc"), ("cvat", "cvat"), ("darknet", "yolo")],
)
def test_datumaro_reads(scenes, written, tmp_path, format, name):
    datumaro = pytest.importorskip("datumaro.components.dataset")
    data = scenes
    if name == "yolo":  # of which it reads boxes alone
        data = replace(scenes.without_masks(), splits=["train", "train", "val"])
    if format == "voc":  # of other classes it needs a file of its own
        data = data.rename_categories(dict(zip([c.name for c in data.categories], CLASSES, strict=False)))
    target = written(format, data)
    if format == "coco":  # which it reads in COCO's own layout
        place = tmp_path / "layout"
        (place / "annotations").mkdir(parents=True)
        (place / "images" / "all").mkdir(parents=True)
        (place / "annotations/instances_all.json").write_bytes(target.read_bytes())
        for path in scenes.paths:
            Image.open(scenes.root / path).save(place / "images/all" / path.rpartition("/")[2])
        target = place
    dataset = datumaro.Dataset.import_from(str(target), name)
    kinds = {"mask", "polygon", "bbox"}
    counts = [sum(a.type.name in kinds for a in item.annotations) for item in dataset]
    assert len(dataset) == len(scenes) and sum(counts) >= len(scenes.ids)

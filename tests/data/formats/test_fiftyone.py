"""Reading and writing FiftyOne."""

import base64
import io
import json
import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

import boxel.data
from boxel.data.formats.fiftyone import unpack_mask
from boxel.utils.errors import BoxelError


def pack(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return zlib.compress(file.getvalue())


def detection(label="cat", box=(0.1, 0.2, 0.3, 0.4), mask=None, oid="6b0b4571a407959d03a25d0d", **more):
    fields = {"_id": {"$oid": oid}, "_cls": "Detection", "attributes": {}, "tags": [], "label": label}
    if mask is not None:
        fields["mask"] = {"$binary": {"base64": base64.b64encode(mask).decode(), "subType": "00"}}
    return fields | {"bounding_box": list(box)} | more


def field(*objects, kind="Detections"):
    return {"_cls": kind, kind.lower(): list(objects)}


def make(folder, *samples, metadata=None, name="one.png"):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 50)).save(folder / "data" / name)
    (folder / "metadata.json").write_text(json.dumps(metadata or {"version": "1.0.0"}))
    (folder / "samples.json").write_text(json.dumps({"samples": list(samples)}))
    return folder


def sample(*objects, filepath="data/one.png", **more):
    return {
        "filepath": filepath,
        "tags": [],
        "_id": {"$oid": "a" * 24},
        "ground_truth": field(*objects),
    } | more


def extras(data, row):
    return json.loads(data.extras[row] or "{}")


MASK = np.zeros((20, 30), dtype=bool)
MASK[3:9, 4:20] = True


def test_detections_become_boxes_and_masks(tmp_path):
    objects = [
        detection("dog", mask=pack(MASK), iscrowd=1, pose="lying", confidence=0.5),
        detection(box=(0.5, 0.2, 0.3, 0.4), annotation_id=41, tags=["hard"]),
    ]
    folder = make(
        tmp_path, sample(*objects, tags=["train", "night"], note="x"), metadata={"default_classes": ["dog"]}
    )
    for path in (folder, folder / "samples.json"):
        assert boxel.data.recognize(path) == "fiftyone"
        data = boxel.data.read(path)
        assert data.paths == ["one.png"] and data.root == folder / "data" and data.image_size(0) == (100, 50)
        np.testing.assert_allclose(data.boxes, [[10, 10, 40, 30], [50, 10, 80, 30]])
        assert data.ids == ["one:1", 41] and [c.name for c in data.categories] == ["dog", "cat"]
        assert data.iscrowd.tolist() == [True, False] and data.quality[0] == 0.5
        np.testing.assert_array_equal(data.mask(0)[10:30, 10:40], MASK)
        assert data.mask(0).sum() == MASK.sum()
        assert extras(data, 0) == {
            "attributes": {"pose": "lying"},
            "fiftyone": {"id": "6b0b4571a407959d03a25d0d"},
        }
        assert extras(data, 1)["tags"] == ["hard"]
        assert data.splits == ["train"]
        stated = {"attributes": {"note": "x"}, "tags": ["night"], "fiftyone": {"id": "a" * 24}}
        assert json.loads(data.image_extras[0]) == stated and data.issues == []


def test_closed_polylines_become_polygons(tmp_path):
    ring = [[0.1, 0.2], [0.5, 0.5], [0.3, 0.9]]
    closed = {"_cls": "Polyline", "label": "cat", "points": [ring], "closed": True, "filled": True}
    objects = field(closed, closed | {"closed": False, "filled": False}, kind="Polylines")
    data = boxel.data.read(make(tmp_path, {"filepath": "/home/me/one.png", "shapes": objects}))
    assert data.boxes.tolist() == [[10, 10, 50, 45]] and data.segmentation(0) == [[10, 10, 50, 25, 30, 45]]
    assert ["an open line" in issue.message for issue in data.issues] == [True]


def test_other_fields_are_reported(tmp_path):
    data = boxel.data.read(make(tmp_path, sample(detection(), predictions=field(detection(), detection()))))
    assert len(data.ids) == 1
    assert [issue.kind for issue in data.issues] == ["field-not-read"]
    assert "'predictions' (objects: 2)" in data.issues[0].message


def test_a_mask_of_another_resolution_fills_its_box(tmp_path):
    coarse = np.array([[1, 0], [0, 1]], dtype=np.uint8) * 255
    data = boxel.data.read(
        make(
            tmp_path,
            sample(
                detection(mask=pack(coarse)), detection(box=(-0.1, 0, 0.2, 1), mask=pack(np.ones((50, 20))))
            ),
        )
    )
    np.testing.assert_array_equal(data.mask(0)[10:30, 10:40], np.kron(coarse != 0, np.ones((10, 15))))
    assert data.mask(1)[:, :10].all() and data.mask(1).sum() == 500  # half of it is outside


def test_masks_in_files_are_read_from_the_folder_only(tmp_path):
    folder = make(
        tmp_path / "set", sample(detection(mask_path="fields/m.png"), detection(mask_path="../m.png"))
    )
    (folder / "fields").mkdir()
    for file in (folder / "fields" / "m.png", tmp_path / "m.png"):
        Image.fromarray(MASK).save(file)
    data = boxel.data.read(folder)
    assert data.has_mask.tolist() == [True, False] and data.mask(0).sum() == MASK.sum()
    assert [issue.kind for issue in data.issues] == ["bad-mask"]


def header(shape, dtype="'|b1'", order=False):
    text = f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}".ljust(117) + "\n"
    return zlib.compress(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())


@pytest.mark.parametrize(
    "content, reason",
    [
        (zlib.compress(bytes(10**7)), "larger than its image"),
        (pack(MASK)[:-9], "truncated"),
        (pack(np.array([None, {}]), allow_pickle=True), "type object"),
        (pack(np.zeros(5)), "1 dimensions"),
        (pack(np.array([["a"]])), "type <U1"),
        (header("(1000000, 1000000)"), "not the one that it states"),
        (b"nothing", "incorrect header"),
        (zlib.compress(b"nothing at all"), "magic"),
    ],
)
def test_bad_masks_cost_only_themselves(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        unpack_mask(content, 100 * 50)
    data = boxel.data.read(make(tmp_path, sample(detection(mask=content))))
    assert data.boxes.tolist() == [[10, 10, 40, 30]] and not data.has_segmentation.any()
    assert [issue.kind for issue in data.issues] == ["bad-mask"] and reason in data.issues[0].message


def test_arrays_in_fortran_order_are_read():
    np.testing.assert_array_equal(unpack_mask(pack(np.asfortranarray(MASK)), 5000), MASK)


@pytest.mark.parametrize(
    "bad",
    [
        detection(None),
        detection(box=(1, 2, 3)),
        detection(box=("x",) * 4),
        detection(box=(float("nan"),) * 4),
    ],
)
def test_a_bad_object_costs_only_itself(tmp_path, bad):
    folder = make(tmp_path, sample(detection()))
    text = (folder / "samples.json").read_text()
    bad = json.dumps(bad).replace("NaN", '"nan"')
    (folder / "samples.json").write_text(text.replace('"detections": [', f'"detections": [{bad}, '))
    data = boxel.data.read(folder)
    assert data.ids == ["one:2"] and [issue.kind for issue in data.issues] == ["bad-annotation"]


def test_a_bad_sample_costs_only_itself(tmp_path):
    data = boxel.data.read(make(tmp_path, 5, {"filepath": 3}, sample(filepath="../../etc/passwd")))
    assert data.paths == ["etc/passwd"] and [issue.kind for issue in data.issues] == [
        "bad-image",
        "bad-image",
    ]
    (tmp_path / "samples.json").write_text('{"samples": [')
    with pytest.raises(BoxelError, match="ends too early"):
        boxel.data.read(tmp_path)


def test_exports_of_detections_alone_are_read(tmp_path):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (100, 50)).save(tmp_path / "data" / "one.png")
    item = {
        "label": 1,
        "bounding_box": [0.1, 0.2, 0.3, 0.4],
        "attributes": {"pose": "lying"},
        "confidence": 0.25,
    }
    labels = {"classes": ["dog", "cat"], "labels": {"one": [item], "two": None, "three": "x"}}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    assert boxel.data.recognize(tmp_path) == boxel.data.recognize(tmp_path / "labels.json") == "fiftyone"
    data = boxel.data.read(tmp_path)
    assert (
        data.paths[0] == "one.png" and data.boxes.tolist() == [[10, 10, 40, 30]] and data.quality[0] == 0.25
    )
    assert [c.name for c in data.categories] == ["dog", "cat"] and data.labels.tolist() == [1]
    assert extras(data, 0) == {"attributes": {"pose": "lying"}}
    assert [issue.kind for issue in data.issues] == ["bad-annotation"]
    coco = {
        "info": {},
        "images": [],
        "annotations": [],
        "categories": [],
    }  # which FiftyOne exports under the same name
    (tmp_path / "labels.json").write_text(json.dumps(coco))
    assert boxel.data.recognize(tmp_path / "labels.json") == "coco"


def test_without_fiftyone_a_sentence_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    data = boxel.data.read(make(tmp_path, sample(detection())))
    with pytest.raises(BoxelError, match="needs fiftyone, which is not installed"):
        boxel.data.to_fiftyone(data)


class Exported:
    """A dataset of FiftyOne: its name, its values, and an export without media as FiftyOne writes it."""

    name = "street"

    def __init__(self, *samples):
        self.samples = samples

    def values(self, name):
        return [sample[name] for sample in self.samples]

    def export(self, *, export_dir, dataset_type, export_media, rel_dir):
        assert dataset_type is FiftyOneDataset and not export_media
        relative = [s | {"filepath": s["filepath"].removeprefix(f"{rel_dir}/")} for s in self.samples]
        Path(export_dir, "samples.json").write_text(json.dumps({"samples": relative}))
        Path(export_dir, "metadata.json").write_text(json.dumps({"default_classes": ["dog"]}))


class FiftyOneDataset:
    """The type of FiftyOne's own export."""


def test_a_dataset_of_fiftyone_is_read_where_its_images_are(tmp_path, monkeypatch):
    types = ModuleType("fiftyone.types")
    types.FiftyOneDataset = FiftyOneDataset
    monkeypatch.setitem(sys.modules, "fiftyone", ModuleType("fiftyone"))
    monkeypatch.setitem(sys.modules, "fiftyone.types", types)
    for name in ("day/one.png", "night/two.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (100, 50)).save(tmp_path / name)
    first = sample(detection("dog", mask=pack(MASK), quality=0.75), filepath=str(tmp_path / "day/one.png"))
    bad = detection() | {"label": None}
    second = sample(detection("cat"), bad, filepath=str(tmp_path / "night/two.png"))
    data = boxel.data.from_fiftyone(Exported(first, second))
    assert data.root == tmp_path and data.paths == ["day/one.png", "night/two.png"]
    assert data.ids == ["one:1", "two:1"] and [c.name for c in data.categories] == ["dog", "cat"]
    assert data.quality[0] == 0.75 and data.mask(0).sum() == MASK.sum()
    assert [issue.message for issue in data.issues] == [
        "street: object two:2 cannot be read (it has no label); it is left out."
    ]
    with pytest.raises(BoxelError, match="street: this dataset of FiftyOne has no images"):
        boxel.data.from_fiftyone(Exported())


def test_fiftyone_reads_what_is_written(tmp_path):
    fiftyone = pytest.importorskip("fiftyone")
    objects = [detection("dog", mask=pack(MASK), pose="lying"), detection(box=(0.5, 0.2, 0.3, 0.4))]
    data = boxel.data.read(make(tmp_path, sample(*objects, tags=["train"])))
    boxel.data.write(data, tmp_path / "out", "fiftyone")
    datasets = [
        fiftyone.Dataset.from_dir(str(tmp_path / "out"), dataset_type=fiftyone.types.FiftyOneDataset),
        boxel.data.to_fiftyone(data),
    ]
    for dataset in datasets:
        found = dataset.first()
        assert found.tags == ["train"] and dataset.default_classes == ["cat", "dog"]
        first, second = found.ground_truth.detections
        assert first.label == "dog" and first.pose == "lying" and first.annotation_id == "one:1"
        np.testing.assert_array_equal(first.mask, MASK[3:9, 4:20])
        whole = first.to_segmentation(frame_size=(100, 50), target=1).mask
        np.testing.assert_array_equal(whole != 0, data.mask(0) != 0)
        np.testing.assert_allclose(second.bounding_box, [0.5, 0.2, 0.3, 0.4])
        back = boxel.data.from_fiftyone(dataset)
        assert back.root == data.root and back.ids == data.ids
        np.testing.assert_array_equal(back.mask(0), data.mask(0))
        dataset.export(
            export_dir=str(tmp_path / "again"), dataset_type=fiftyone.types.FiftyOneDataset, overwrite=True
        )
        again = boxel.data.read(tmp_path / "again")
        assert again.ids == data.ids and again.splits == ["train"] and again.issues == []
        np.testing.assert_array_equal(again.mask(0), data.mask(0))
        dataset.delete()


def test_labels_that_are_not_objects_and_samples_that_are_not_images_are_reported_by_count(tmp_path):
    points = {"_cls": "Keypoints", "keypoints": [{"label": "eye", "points": [[0.5, 0.5]]}]}
    pixels = {"_cls": "Segmentation", "mask_path": "a.png"}
    whole = sample(
        detection(index=7), points=points, pixels=pixels, model=field(detection(), detection()), sizes=[1, {"a": 2}],
        created_at={"$date": "2026-01-01"},
    )  # fmt: skip
    video = sample(filepath="data/clip.mp4", _media_type="video", points=points)
    data = boxel.data.read(make(tmp_path, whole, video))
    assert data.paths == ["one.png"] and len(data.ids) == 1
    assert [issue.message.partition(": ")[2] for issue in data.issues] == [
        "field 'model' (objects: 2) is not read, but 'ground_truth' is.",
        "field 'pixels' (Segmentation, samples: 1) is not read; it has neither boxes nor masks of objects.",
        "field 'points' (Keypoints, samples: 2) is not read; it has neither boxes nor masks of objects.",
        "1 of 2 samples are of the media type video, not images; they are left out.",
    ]
    assert json.loads(data.image_extras[0])["attributes"] == {"sizes": [1, {"a": 2}]}
    with pytest.warns(boxel.data.ConversionWarning, match=r"no place for attributes \(1 image\)"):
        boxel.data.write(data, tmp_path / "out", "fiftyone")
    (written,) = json.loads((tmp_path / "out/samples.json").read_text())["samples"]
    assert written["ground_truth"]["detections"][0]["index"] == 7  # of a track
    assert extras(boxel.data.read(tmp_path / "out"), 0)["fiftyone"]["index"] == 7

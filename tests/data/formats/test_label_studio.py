"""Reading and writing Label Studio."""

import json
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

import boxel.data
from boxel.data.formats.brush import encode_brush
from boxel.utils.errors import BoxelError


def region(kind, label="cat", id="a", **value):
    fields = {
        "original_width": 100,
        "original_height": 50,
        "image_rotation": 0,
        "from_name": "x",
        "to_name": "image",
    }
    more = {key: value.pop(key) for key in ("score", "origin", "image_rotation", "meta") if key in value}
    return {"id": id, "type": f"{kind}labels", "value": value | {f"{kind}labels": [label]}} | fields | more


BOX = {"x": 10, "y": 20, "width": 30, "height": 40}  # of 100 x 50: 10, 10, 40, 30


def task(results, image="/data/upload/3/0a1b2c3d-one.png", id=7, **more):
    return {"id": id, "annotations": [{"id": 1, "result": results}], "data": {"image": image}} | more


def make(folder, *tasks, name="export.json", encoding="utf-8"):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 50)).save(folder / "images" / "one.png")
    (folder / name).write_text(json.dumps(tasks, ensure_ascii=False), encoding=encoding)
    return folder


def extras(data, row):
    return json.loads(data.extras[row] or "{}")


def test_regions_become_boxes_and_masks(tmp_path):
    mask = np.zeros((50, 100), dtype=bool)
    mask[20, 91:93] = True
    results = [
        region("rectangle", "dog", "41", **BOX),
        region("polygon", points=[[10, 20], [30, 20], [30, 80]], closed=True),
        region("ellipse", id="e", x=50, y=50, radiusX=10, radiusY=40, rotation=90),
        region("brush", id="b", format="rle", rle=encode_brush(mask)),
    ]
    for path in (make(tmp_path, task(results)), tmp_path / "export.json"):
        assert boxel.data.recognize(path) == "label-studio"
        data = boxel.data.read(path)
        assert data.image_ids == [7] and data.paths == ["one.png"] and data.image_size(0) == (100, 50)
        assert data.ids == [41, "a", "e", "b"] and data.issues == []
        assert [(c.id, c.name) for c in data.categories] == [(1, "cat"), (2, "dog")]
        assert data.labels.tolist() == [1, 0, 0, 0]
        boxes = [[10, 10, 40, 30], [10, 10, 30, 40], [30, 15, 70, 35], [91, 20, 93, 21]]
        np.testing.assert_allclose(data.boxes, boxes, atol=1e-9)
        assert data.segmentation(1) == [[10, 10, 30, 10, 30, 40]]
        assert data.mask(2).sum() == pytest.approx(np.pi * 200, rel=0.02)
        np.testing.assert_array_equal(data.mask(3), mask)
        assert np.isnan(data.quality).all() and data.source.tolist() == [None] * 4
        assert json.loads(data.image_extras[0])["data"]["image"].startswith("/data/upload")


def test_a_rotated_box_turns_about_its_corner_and_is_never_a_mask(tmp_path):
    data = boxel.data.read(make(tmp_path, task([region("rectangle", **BOX, rotation=90)])))
    np.testing.assert_allclose(
        data.boxes, [[-10, 10, 10, 40]], atol=1e-6
    )  # 30 x 20 pixels, turned about (10, 10)
    assert not data.has_segmentation.any()
    np.testing.assert_allclose(
        extras(data, 0)["corners"], [[10, 10], [10, 40], [-10, 40], [-10, 10]], atol=1e-6
    )
    boxel.data.write(data, tmp_path / "out", "label-studio")
    (written,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    value = written["predictions"][0]["result"][0]["value"]
    assert {key: value[key] for key in (*BOX, "rotation")} == pytest.approx(BOX | {"rotation": 90})


def test_a_shape_its_labels_and_its_choices_are_one_region(tmp_path):
    shape = region("rectangle", **BOX)
    del shape["value"]["rectanglelabels"]
    results = [
        {**shape, "type": "rectangle"},
        {**shape, "type": "labels", "value": {**BOX, "labels": ["cat", "pet"]}},
        {**shape, "type": "choices", "from_name": "pose", "value": {**BOX, "choices": ["lying"]}},
        {**shape, "type": "textarea", "from_name": "note", "value": {**BOX, "text": ["a", "b"]}},
        {"id": "i", "type": "choices", "from_name": "light", "value": {"choices": ["dim"]}},
        {"type": "relation", "from_id": "a", "to_id": "a"},
        region("keypoint", id="k", x=1, y=1, width=1),
        region("keypoint", id="l", x=1, y=1, width=1),
    ]
    data = boxel.data.read(make(tmp_path, task(results)))
    assert data.boxes.tolist() == [[10, 10, 40, 30]] and data.categories[0].name == "cat"
    attributes = {"pose": "lying", "note": ["a", "b"]}
    assert extras(data, 0) == {"attributes": attributes, "labels": ["cat", "pet"]}
    assert json.loads(data.image_extras[0])["attributes"] == {"light": "dim"}
    assert [(issue.kind, issue.values["count"]) for issue in data.issues] == [
        ("several-labels", 1),
        ("not-an-object", 1),
        ("not-an-object", 2),
    ]


def annotation(x, **more):
    return {"result": [region("rectangle", **{**BOX, "x": x})], **more}


@pytest.mark.parametrize(
    "annotations, x",
    [
        ([annotation(1, created_at="2026-02"), annotation(2, created_at="2026-01")], 2),
        ([annotation(1, was_cancelled=True), annotation(2)], 2),
        ([annotation(1), annotation(2, ground_truth=True, updated_at="2026-01"), annotation(3)], 2),
        (
            [
                annotation(1, ground_truth=True, updated_at="2026-03"),
                annotation(2, ground_truth=True, updated_at="1"),
            ],
            1,
        ),
    ],
)
def test_the_latest_ground_truth_or_the_first_submitted_annotation_counts(tmp_path, annotations, x):
    data = boxel.data.read(make(tmp_path, task([], annotations=annotations)))
    assert data.boxes[:, 0].tolist() == [x]
    several = [issue for issue in data.issues if issue.kind == "several-annotations"]
    assert len(several) == (0 if annotations[0].get("was_cancelled") else 1)


def test_tasks_without_an_annotation_are_left_out_or_their_predictions_read(tmp_path):
    predictions = [
        {"model_version": "old", "created_at": "2026-01", "result": [region("rectangle", **BOX)]},
        {
            "model_version": "net 2",
            "score": 0.5,
            "created_at": "2026-02",
            "result": [region("rectangle", id="p", **BOX, score=0.75), region("rectangle", id="q", **BOX)],
        },
    ]
    tasks = [
        task([], annotations=[], predictions=predictions),
        task([], annotations=[], id=8, image="two.png"),
        task([], annotations=[annotation(1, was_cancelled=True)], id=9, image="three.png"),
        task([], id=10, image="four.png"),  # submitted, without any object
    ]
    data = boxel.data.read(make(tmp_path, *tasks))
    assert data.image_ids == [7, 10] and data.ids == ["p", "q"]
    assert data.quality.tolist() == [0.75, 0.5] and data.source.tolist() == ["net 2", "net 2"]
    assert [(issue.kind, issue.values["count"]) for issue in data.issues] == [
        ("not-annotated", 1),
        ("not-annotated", 1),
    ]


def test_json_min(tmp_path):
    box = {**BOX, "rotation": 0, "rectanglelabels": ["dog"], "original_width": 100, "original_height": 50}
    record = {"image": "s3://bucket/one.png", "id": 3, "label": [box], "annotator": 1, "annotation_id": 5}
    second = record | {"label": [box, box], "annotation_id": 6}
    data = boxel.data.read(make(tmp_path, record, second))
    assert boxel.data.recognize(tmp_path) == "label-studio"
    assert data.image_ids == [3] and data.paths == ["one.png"] and data.boxes.tolist() == [[10, 10, 40, 30]]
    assert data.ids == ["one:1"] and [issue.kind for issue in data.issues] == ["several-annotations"]


@pytest.mark.parametrize(
    "url",
    [
        "/data/upload/3/0a1b2c3d-one.png",
        "/data/local-files/?d=photos/one.png",
        "http://localhost:8080/data/local-files/?d=photos%2Fone.png",
        "s3://bucket/photos/one.png",
        "https://host/photos/one.png?token=a%2Fb.png",
        "C:\\photos\\ONE.PNG",
        "../../one.png",
    ],
)
def test_images_are_found_by_their_addresses(tmp_path, url):
    data = boxel.data.read(make(tmp_path, task([region("rectangle", **BOX)], image=url)))
    assert data.paths == ["one.png"]
    (tmp_path / "images" / "0a1b2c3d-one.png").write_bytes((tmp_path / "images" / "one.png").read_bytes())
    expected = "0a1b2c3d-one.png" if "0a1b" in url else "one.png"
    assert boxel.data.read(tmp_path).paths == [expected]


def test_images_are_sought_in_the_folder_only(tmp_path):
    data = boxel.data.read(make(tmp_path, task([region("rectangle", **BOX)], image="../../../etc/passwd")))
    assert data.paths == ["etc/passwd"]


@pytest.mark.parametrize(
    "bad, reason",
    [
        (region("rectangle", x=1, y=2, width=3), "it has no height"),
        (region("rectangle", **BOX | {"x": "left"}), "could not convert"),
        (region("rectangle", **BOX | {"x": 1e999}), "cannot be read"),
        (region("polygon", points=[[1, 2], [3, 4]]), "fewer than three points"),
        (region("polygon", points=[[1, 2, 3]] * 3), "too many values"),
        (region("brush", rle=[0, 0, 1]), "ends too early"),
        (region("brush", rle=encode_brush(np.ones((9, 9)))), "not the 100 x 50 pixels"),
        (region("brush", rle=encode_brush(np.zeros((50, 100)))), "is empty"),
        (region("rectangle", **BOX, image_rotation=90), "rotated by 90 degrees"),
        ({**region("rectangle", **BOX), "value": BOX}, "it has no label"),
    ],
)
def test_a_bad_region_costs_only_itself(tmp_path, bad, reason):
    if bad["value"].get("x") == float("inf"):
        bad["value"]["x"] = "inf"
    good = region("rectangle", id="g", **BOX)
    data = boxel.data.read(make(tmp_path, task([good, bad])))
    assert data.ids == ["g"] and [issue.kind for issue in data.issues] == ["bad-annotation"]
    assert reason in data.issues[0].message


@pytest.mark.parametrize(
    "bad", [5, {"data": {"image": 3}}, {"data": {"image": "data:image/png;base64,AAAA"}}, {"data": 1}]
)
def test_a_bad_task_costs_only_itself(tmp_path, bad):
    bad = bad if bad == 5 else bad | {"annotations": [annotation(1)]}
    data = boxel.data.read(make(tmp_path, task([region("rectangle", **BOX)]), bad))
    assert data.image_ids == [7] and [issue.kind for issue in data.issues] == ["bad-image"]


def test_damaged_files_are_one_sentence(tmp_path):
    folder = make(tmp_path, task([region("rectangle", **BOX)]))
    text = (folder / "export.json").read_text()
    (folder / "export.json").write_text(text[:-20])
    with pytest.raises(BoxelError, match=r"not a list of tasks \(it ends too early\)"):
        boxel.data.read(folder)
    assert boxel.data.recognize(make(tmp_path / "b", task([]), encoding="utf-8-sig")) == "label-studio"
    assert len(boxel.data.read(make(tmp_path / "c", task([]), encoding="utf-16"))) == 1


@pytest.mark.parametrize(
    "text", ['[{"data" ', '[{"' + '\\"' * 30_000, "[" * 60_000, '[{"a": {"data": 1}}]', '["data"', ""]
)
def test_other_lists_are_recognized_in_no_time(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    start = time.process_time()
    assert boxel.data.recognize(tmp_path / "a.json") == "coco"
    assert time.process_time() - start < 2


def test_lists_of_results_are_not_tasks(tmp_path):
    (tmp_path / "r.json").write_text('[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]')
    assert boxel.data.recognize(tmp_path / "r.json") == "coco"


def test_what_is_written_can_be_imported_as_it_is(tmp_path):
    results = [
        region("rectangle", "dog", "41", **BOX),
        region("polygon", 'a"<b', points=[[10, 20], [30, 20], [30, 80]]),
    ]
    data = boxel.data.read(make(tmp_path, task(results, image="/x/one.png")))
    data = boxel.data.Annotations(
        **vars(data)
        | {"quality": [0.5, np.nan], "source": ["grabcut", None], "image_extras": [None], "splits": ["val"]}
    )
    boxel.data.write(data, tmp_path / "out", "label-studio")
    (written,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    address = "/data/local-files/?d=images/one.png"
    assert written["data"] == {"image": address, "file_name": "one.png", "split": "val"}
    (prediction,) = written["predictions"]
    assert prediction["model_version"] == "grabcut" and prediction["score"] == 0.5
    config = ElementTree.parse(tmp_path / "out" / "label_config.xml").getroot()
    controls = {control.get("name"): control for control in config if control.tag != "Image"}
    for result in prediction["result"]:
        control = controls[result["from_name"]]
        assert control.tag.lower() == result["type"] and control.get("toName") == result["to_name"] == "image"
        (label,) = result["value"][result["type"]]
        assert label in [item.get("value") for item in control]
    assert prediction["result"][0]["id"] == "41" and prediction["result"][0]["score"] == 0.5
    (tmp_path / "out" / "boxel-ids.json").unlink()
    alone = boxel.data.read(tmp_path / "out")
    assert (
        alone.ids == [41, "a"]
        and alone.splits == ["val"]
        and alone.categories[0].name == data.categories[0].name
    )
    assert [c.id for c in alone.categories] == [c.id for c in data.categories]
    assert alone.quality[0] == 0.5 and alone.source.tolist() == ["grabcut", "grabcut"]


def test_an_image_of_label_studio_keeps_its_address(tmp_path):
    data = boxel.data.read(make(tmp_path, task([region("rectangle", **BOX)])))
    boxel.data.write(data, tmp_path / "out", "label-studio")
    (written,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert written["data"] == {"image": "/data/upload/3/0a1b2c3d-one.png", "file_name": "one.png"}
    assert (tmp_path / "out" / "images" / "one.png").exists()


def test_corrected_predictions_keep_ids_but_not_quality(tmp_path):
    data = boxel.data.read(
        make(
            tmp_path,
            task(
                [
                    region("rectangle", "cat", "1", **BOX),
                    region("rectangle", "cat", "2", x=60, y=10, width=20, height=20),
                ]
            ),
        )
    )
    data = boxel.data.Annotations(**vars(data) | {"quality": [0.5, 0.75], "source": ["net", "net"]})
    boxel.data.write(data, tmp_path / "out", "label-studio")
    file = tmp_path / "out" / "tasks.json"
    (written,) = json.loads(file.read_text())
    first, second = written["predictions"].pop()["result"]
    first["value"]["x"] += 50
    written["annotations"] = [
        {"result": [second | {"origin": "prediction"}, first | {"origin": "prediction-changed"}]}
    ]
    file.write_text(json.dumps([written]))
    found = boxel.data.read(tmp_path / "out")
    assert found.ids == [2, 1]
    assert found.quality[0] == 0.75 and np.isnan(found.quality[1]) and found.source[1] is None


def test_label_studios_converter_reads_what_is_written(tmp_path):
    converter = pytest.importorskip("label_studio_sdk.converter")
    results = [
        region("rectangle", "dog", "41", **BOX),
        region("polygon", points=[[10, 20], [30, 20], [30, 80]]),
    ]
    boxel.data.write(boxel.data.read(make(tmp_path, task(results))), tmp_path / "out", "label-studio")
    (written,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    written["annotations"] = written.pop("predictions")  # it converts what annotators have submitted
    (tmp_path / "tasks.json").write_text(json.dumps([written]))
    config = (tmp_path / "out" / "label_config.xml").read_text()
    converter.Converter(config, str(tmp_path), download_resources=False).convert_to_coco(
        str(tmp_path / "tasks.json"), str(tmp_path / "coco"), is_dir=False
    )
    found = json.loads((tmp_path / "coco" / "result.json").read_text())
    assert [a["bbox"] for a in found["annotations"]] == [[10, 10, 30, 20], [10, 10, 20, 30]]
    names = {c["id"]: c["name"] for c in found["categories"]}
    assert [names[a["category_id"]] for a in found["annotations"]] == ["dog", "cat"]


def test_videos_and_key_points_are_left_out_by_count(tmp_path):
    frames = {"sequence": [{"frame": 1, **BOX}], "labels": ["cat"]}
    video = {"type": "videorectangle", "id": "v", "from_name": "x", "to_name": "video", "value": frames}
    clips = [
        {"id": k, "data": {"video": f"/data/{k}.mp4"}, "annotations": [{"result": [video]}]} for k in (1, 2)
    ]
    points = [region("keypoint", id=f"p{k}", x=1, y=1, width=1) for k in range(3)]
    data = boxel.data.read(make(tmp_path, *clips, task([*points, region("rectangle", **BOX)])))
    assert data.image_ids == [7] and data.ids == ["a"]
    assert [issue.message.partition(": ")[2] for issue in data.issues] == [
        "tasks that name no image, but e.g. a video or a text: 2; they are left out.",
        "3 x keypointlabels: not a box, a polygon, an ellipse or a brush mask; left out.",
    ]

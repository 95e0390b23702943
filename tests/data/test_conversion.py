"""Conversion between all formats."""

import itertools
import json
import warnings

import numpy as np
import pytest
from PIL import Image

import boxel.data
from boxel.data.formats import ConversionWarning, convert
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError, UsageError

FORMATS = ["coco", "voc", "yolo", "labelme", "sbd"]


@pytest.fixture
def source(tmp_path):
    """Two images, ids with gaps, two separate instances, each a polygon that every format can hold."""
    content = {
        "images": [
            {"id": 31, "file_name": "one.png", "width": 60, "height": 40},
            {"id": 4, "file_name": "two.png", "width": 60, "height": 40},
        ],
        "annotations": [
            {
                "id": 90,
                "image_id": 31,
                "category_id": 0,
                "bbox": [5, 5, 10, 20],
                "segmentation": [[5, 5, 15, 5, 15, 25, 10, 25, 10, 15, 5, 15]],
            },
            {
                "id": 7,
                "image_id": 31,
                "category_id": 17,
                "bbox": [30, 5, 20, 30],
                "segmentation": [[30, 5, 50, 5, 50, 35]],
            },
        ],
        "categories": [{"id": 17, "name": "zebra", "supercategory": "animal"}, {"id": 0, "name": "axe"}],
    }
    (tmp_path / "in").mkdir()
    for image in content["images"]:
        Image.new("RGB", (60, 40)).save(tmp_path / "in" / image["file_name"])
    (tmp_path / "in/set.json").write_text(json.dumps(content))
    return tmp_path / "in/set.json"


def place(tmp_path, format, name):
    return tmp_path / f"{name}.json" if format == "coco" else tmp_path / name


@pytest.mark.slow
@pytest.mark.parametrize("first, second", list(itertools.product(FORMATS, FORMATS)))
def test_every_format_converts_to_every_other(source, tmp_path, first, second):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConversionWarning)
        a, b, c = (place(tmp_path, format, f"step{k}") for k, format in enumerate((first, second, "coco")))
        convert(source, a, first, images=source.parent if first == "coco" else None)
        convert(a, b, second, images=source.parent if first == "coco" else None)
        images = source.parent if second == "coco" else None
        convert(b, c, "coco", images=images)
    data, again = boxel.data.read(source), boxel.data.read(c)
    assert again.ids == data.ids and again.image_ids == data.image_ids and again.issues == []
    assert sorted(again.categories, key=lambda c: c.id) == sorted(data.categories, key=lambda c: c.id)
    assert [again.categories[k].name for k in again.labels] == ["axe", "zebra"]
    np.testing.assert_allclose(
        again.boxes, data.boxes, atol=1.01 if {first, second} & {"voc", "sbd"} else 1e-6
    )
    for i in range(2):
        before, after = data.mask(i), again.mask(i)
        assert (before & after).sum() / (before | after).sum() == 1


@pytest.mark.parametrize("format", FORMATS[:4])
def test_boxes_without_masks_convert_silently(source, tmp_path, format):
    data = boxel.data.read(source).without_masks()
    boxel.data.write(data, tmp_path / "boxes.json")
    target = place(tmp_path, format, "out")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConversionWarning)
        convert(tmp_path / "boxes.json", target, format, images=source.parent)
    again = boxel.data.read(target, images=source.parent if format == "coco" else None)
    assert not again.has_mask.any() and again.issues == []
    np.testing.assert_allclose(again.boxes, data.boxes, atol=1e-6)


def test_a_dataset_without_its_images_is_not_converted(source, tmp_path):
    moved = tmp_path / "elsewhere/moved.json"
    moved.parent.mkdir()
    source.rename(moved)
    with pytest.raises(BoxelError, match=r"moved\.json: images are missing \(2 of 2\), .*with `images`"):
        convert(moved, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()
    convert(moved, tmp_path / "out", "voc", images=source.parent)
    convert(moved, tmp_path / "copy.json")  # a COCO file holds no images


def test_the_target_is_checked_before_the_dataset_is_read(source, tmp_path):
    with pytest.raises(BoxelError, match="out: name the format to write with `format`"):
        convert(source, tmp_path / "out")
    with pytest.raises(BoxelError, match=r"out: a COCO dataset is one file; end its name in \.json"):
        convert(source, tmp_path / "out", "coco")
    assert not (tmp_path / "out").exists()


def holed(source, tmp_path):
    """A mask of 20 x 20 pixels with a hole of 10 x 10."""
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[5:25, 5:25] = 1
    mask[10:20, 10:20] = 0
    content = json.loads(source.read_text())
    content["annotations"][0] |= {"segmentation": encode(mask), "bbox": [5, 5, 20, 20]}
    content["annotations"] = content["annotations"][:1]
    (tmp_path / "in/holed.json").write_text(json.dumps(content))
    return tmp_path / "in/holed.json"


@pytest.mark.parametrize("format", ["yolo", "labelme"])
def test_outlines_keep_holes(source, tmp_path, format):
    file = holed(source, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConversionWarning)
        convert(file, tmp_path / "out", format)
    before, after = boxel.data.read(file).mask(0), boxel.data.read(tmp_path / "out").mask(0)
    assert before.sum() == 300 and (after == before).all()


@pytest.mark.parametrize("format", ["yolo", "labelme", "coco"])
def test_the_iou_lost_by_an_outline_is_reported(source, tmp_path, format):
    file = holed(source, tmp_path)
    target = place(tmp_path, format, "out")
    options = {"polygons": True} if format == "coco" else {}
    # 8 pixels are as far from each other as a corner and the middle of the hole: nothing of it is left.
    with pytest.warns(ConversionWarning, match=r"1 of 1 masks changed and lost 0\.\d{4} mask IoU on average"):
        convert(file, target, format, images=source.parent, simplify=8, **options)
    assert isinstance(boxel.data.read(target, images=source.parent).segmentation(0), list)


@pytest.mark.parametrize("format", ["coco", "voc", "sbd"])
def test_formats_with_holes_keep_them(source, tmp_path, format):
    file = holed(source, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConversionWarning)
        convert(file, place(tmp_path, format, "out"), format, images=source.parent)
    before, after = boxel.data.read(file), boxel.data.read(place(tmp_path, format, "out"))
    np.testing.assert_array_equal(before.mask(0), after.mask(0))


@pytest.mark.parametrize("format", ["voc", "sbd"])
def test_the_iou_lost_by_an_overlap_is_reported(source, tmp_path, format):
    content = json.loads(source.read_text())
    content["annotations"][1]["segmentation"] = [
        [5, 5, 25, 5, 25, 25, 5, 25]
    ]  # 150 of its 400 pixels under the other mask
    content["annotations"][1]["bbox"] = [5, 5, 24, 24]
    (tmp_path / "in/over.json").write_text(json.dumps(content))
    with pytest.warns(
        ConversionWarning, match=r"1 of 2 masks changed and lost 0\.3750 mask IoU .* \(0\.1875 over all"
    ):
        convert(tmp_path / "in/over.json", tmp_path / "out", format)


def test_lost_crowds_and_trust_are_reported(source, tmp_path):
    content = json.loads(source.read_text())
    content["annotations"][0]["iscrowd"] = 1
    content["annotations"][1]["trusted"] = False
    (tmp_path / "in/crowd.json").write_text(json.dumps(content))
    with pytest.warns(ConversionWarning) as caught:
        convert(tmp_path / "in/crowd.json", tmp_path / "out", "yolo")
    text = " ".join(str(w.message) for w in caught)
    assert "no crowds: 1 are" in text and "1 masks that are not trusted are written like" in text
    data = boxel.data.read(tmp_path / "out")
    assert data.has_segmentation.tolist() == [True, True] and data.trusted.tolist() == [True, False]


@pytest.mark.parametrize("format", ["voc", "yolo", "labelme", "sbd"])
def test_a_polygon_of_odd_length_costs_only_itself(source, tmp_path, format):
    content = json.loads(source.read_text())
    content["annotations"][0]["segmentation"] = [[5, 5, 15, 5, 15, 25, 5]]
    (tmp_path / "in/odd.json").write_text(json.dumps(content))
    expected = (
        r"odd\.json: 1 of 2 masks cannot be used, only their boxes remain: 1 unreadable \(annotation 90\)"
    )
    with pytest.warns(ConversionWarning, match=expected):
        convert(tmp_path / "in/odd.json", tmp_path / "out", format)
    again = boxel.data.read(tmp_path / "out")
    if format in ("sbd", "yolo"):  # masks only
        assert again.ids == [7]
    else:
        assert again.ids == [90, 7] and again.has_mask.tolist() == [False, True]
        np.testing.assert_allclose(again.boxes[0], [5, 5, 15, 25], atol=1e-6)


def test_a_mask_of_an_image_without_size_is_reported(source, tmp_path):
    content = json.loads(source.read_text())
    content["images"][1] = {"id": 4, "file_name": "absent.png"}
    content["annotations"][0]["image_id"] = 4
    (tmp_path / "in/nosize.json").write_text(json.dumps(content))
    with pytest.warns(
        ConversionWarning, match=r"1 of 2 masks cannot be read .* annotation 90 has a mask, but .* 0 x 0"
    ):
        convert(tmp_path / "in/nosize.json", tmp_path / "out", "labelme")


def test_issues_of_the_source_are_reported_by_kind(source, tmp_path):
    content = json.loads(source.read_text())
    content["annotations"] += [
        {"id": 91, "image_id": 5, "category_id": 0, "bbox": [0, 0, 9, 9]},
        {"id": 92, "image_id": 6, "category_id": 0, "bbox": [0, 0, 9, 9]},
        {"id": 93, "image_id": 4, "category_id": 0, "bbox": "0 0 9 9"},
    ]
    (tmp_path / "in/bad.json").write_text(json.dumps(content))
    with pytest.warns(ConversionWarning) as caught:
        data = convert(tmp_path / "in/bad.json", tmp_path / "out.json")
    first, second = (str(warning.message) for warning in caught)
    assert first.startswith("2 x unknown-image, the first: ") and "annotation 91 refers to image 5" in first
    assert second.startswith("1 x bad-annotation, the first: ") and "annotation 4 of the list" in second
    assert len(data.issues) == 3 and boxel.data.read(tmp_path / "out.json").ids == [90, 7]


def test_edited_datasets_still_read(source, tmp_path):
    convert(source, tmp_path / "out", "yolo")
    with open(tmp_path / "out/labels/one.txt", "a") as file:
        file.write("1 0.5 0.5 0.1 0.1 0.6 0.5\n")
    data = boxel.data.read(tmp_path / "out")
    assert data.image_ids == [31, 4] and data.ids == [90, 7, 91]
    for junk in ("{", "[]", '{"images": {"one": 3}}'):
        (tmp_path / "out/boxel-ids.json").write_text(junk)
        data = boxel.data.read(tmp_path / "out")
        assert data.image_ids == ["one", "two"] and [issue.kind for issue in data.issues] == ["bad-ids"]


def test_a_filled_box_is_a_box_in_formats_for_training_and_stays_in_coco(source, tmp_path):
    content = json.loads(source.read_text())
    content["annotations"][0]["segmentation"] = [[5, 5, 15, 5, 15, 25, 5, 25]]
    (tmp_path / "in/filled.json").write_text(json.dumps(content))
    found = "1 of 2 masks cannot be used, {}: 1 merely the filled box"
    for format, outcome, masks in (
        ("yolo", "only their boxes remain", [True]),
        ("coco", "but are written as they are", [True, True]),
    ):
        target = place(tmp_path, format, "out")
        with pytest.warns(ConversionWarning, match=found.format(outcome)):
            converted = convert(tmp_path / "in/filled.json", target, format, images=source.parent)
        assert boxel.data.read(target).has_mask.tolist() == masks
        assert converted.has_mask.sum() == sum(masks)


def test_objects_without_a_trusted_mask_are_void_in_voc(source, tmp_path):
    content = json.loads(source.read_text())
    content["annotations"][1]["trusted"] = False
    (tmp_path / "in/doubt.json").write_text(json.dumps(content))
    with pytest.warns(
        ConversionWarning, match="VOC cannot mark a mask as untrusted: 1 are written as boxes only"
    ):
        convert(tmp_path / "in/doubt.json", tmp_path / "out", "voc")
    for folder in ("SegmentationObject", "SegmentationClass"):
        values = np.array(Image.open(tmp_path / "out" / folder / "one.png"))
        assert (values[5:35, 30:50] == 255).all() and (values == 255).sum() == 30 * 20
        assert set(np.unique(values)) == {0, 1, 255}
    assert boxel.data.read(tmp_path / "out").has_mask.tolist() == [True, False]


def test_untrusted_masks_are_left_out_of_sbd(source, tmp_path):
    data = boxel.data.read(source)
    data.trusted[1] = False
    with pytest.warns(ConversionWarning, match="SBD cannot mark a mask as untrusted: 1 are left out"):
        boxel.data.write(data, tmp_path / "out", "sbd")
    assert boxel.data.read(tmp_path / "out").ids == [90]


def test_parts_of_a_mask_are_joined_in_yolo(source, tmp_path):
    content = json.loads(source.read_text())
    content["annotations"][0]["segmentation"] = [[5, 5, 15, 5, 15, 25, 5, 25], [20, 5, 28, 5, 28, 25, 20, 25]]
    (tmp_path / "in/parts.json").write_text(json.dumps(content))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        convert(tmp_path / "in/parts.json", tmp_path / "out", "yolo")
    before, after = (
        boxel.data.read(tmp_path / "in/parts.json").mask(0),
        boxel.data.read(tmp_path / "out").mask(0),
    )
    iou = (before & after).sum() / (before | after).sum()
    # Both parts are there, and the reported IoU is that of the result.
    assert iou > 0.9
    assert iou == 1 or f"lost {1 - iou:.4f} mask IoU" in str(caught[0].message)


@pytest.mark.slow
def test_real_images_survive_a_round_trip(shared_data, tmp_path):
    data = boxel.data.read(shared_data / "coco/val_masks.json").select_images(range(20))
    boxel.data.write(data, tmp_path / "few.json")
    with pytest.warns(ConversionWarning, match="mask IoU on average"):
        convert(tmp_path / "few.json", tmp_path / "out", "yolo", images=shared_data / "coco/images")
    again = boxel.data.read(tmp_path / "out")
    order = np.concatenate([data.instances_in(i) for i in range(len(data))])
    assert again.ids == [data.ids[i] for i in order] and again.categories == data.categories
    ious = []
    for new, old in enumerate(order):
        before, after = data.mask(old), again.mask(new)
        ious.append((before & after).sum() / (before | after).sum())
    assert np.mean(ious) > 0.99


@pytest.mark.parametrize("format", ["yolo", "voc", "labelme"])
def test_a_link_out_of_the_image_folder_is_not_followed(source, tmp_path, format):
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"private")
    image = next(file for file in (tmp_path / "in").rglob("one.*") if file.suffix != ".json")
    image.unlink()
    image.symlink_to(secret)
    with pytest.warns(ConversionWarning, match="1 of 2 images are links out of"):
        convert(source, tmp_path / "out", format)
    assert not any(file.read_bytes() == b"private" for file in (tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize(
    ("format", "lost"),
    [
        ("voc", "VOC has no place for licenses: boxel-ids.json keeps them"),
        ("labelme", "LabelMe has no place for licenses: boxel-ids.json keeps them"),
        (
            "sbd",
            r"SBD has no place for track_id \(1 object\), coco_url \(1 image\), licenses: boxel-ids.json keeps",
        ),
        (
            "salient",
            r"has no place for track_id \(1 object\), coco_url \(1 image\), licenses: they are left out",
        ),
    ],
)
def test_fields_that_a_format_cannot_hold_are_named(source, tmp_path, format, lost):
    content = json.loads(source.read_text())
    content["annotations"][0]["track_id"] = 7
    content["images"][0]["coco_url"] = "https://host.example/a.jpg"
    source.write_text(json.dumps(content | {"licenses": [{"id": 1}]}))
    with pytest.warns(ConversionWarning, match=lost):
        convert(source, tmp_path / "out", format)


@pytest.mark.parametrize("name", ["set.json", "./set.json"])
def test_a_dataset_is_not_replaced_by_its_own_conversion(source, monkeypatch, name):
    before = source.read_bytes()
    source = source.rename(source.with_name("set.json"))
    monkeypatch.chdir(source.parent)
    with pytest.raises(UsageError, match="this is the dataset to convert; name another file or folder"):
        convert(source, name)
    assert source.read_bytes() == before

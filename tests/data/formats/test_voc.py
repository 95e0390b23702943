"""Reading and writing Pascal VOC."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boxel.data
from boxel.data.formats import voc
from boxel.utils.errors import BoxelError

XML = """<annotation>
  <filename>one.jpg</filename>
  <size><width>20</width><height>10</height><depth>3</depth></size>
  <object><name>dog</name><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>5</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>
  <object><name>cat</name><bndbox><xmin>11</xmin><ymin>2</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object>
</annotation>"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "Annotations/one.xml").write_text(XML)
    Image.new("RGB", (20, 10)).save(tmp_path / "JPEGImages/one.jpg")
    return tmp_path


def segment(folder, objects, classes):
    """Write the PNGs: `objects` and `classes` map a value to (y0, y1, x0, x1)."""
    for name, regions in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        pixels = np.zeros((10, 20), dtype=np.uint8)
        for (y0, y1, x0, x1), value in regions:
            pixels[y0:y1, x0:x1] = value
        (folder / name).mkdir()
        Image.fromarray(pixels).save(folder / name / "one.png")


def test_files_with_boxes_only_are_read(folder):
    data = boxel.data.read(folder)
    assert data.image_ids == ["one"] and data.image_path(0) == folder / "JPEGImages/one.jpg"
    assert (data.widths[0], data.heights[0]) == (20, 10)
    assert data.boxes.tolist() == [[0, 0, 4, 5], [10, 1, 20, 10]]
    assert data.ids == ["one:1", "one:2"] and not data.has_mask.any() and data.issues == []
    # The challenge's classes keep their numbers; difficult objects are ordinary ones.
    assert [data.categories[label].id for label in data.labels] == [12, 8] and len(data.categories) == 20
    assert not data.iscrowd.any() and data.label_maps == [None]


def test_the_folder_of_xml_files_alone_finds_its_images(folder):
    data = boxel.data.read(folder / "Annotations")
    assert data.image_path(0) == folder / "JPEGImages/one.jpg"


def test_unknown_classes_are_numbered_alphabetically(folder):
    (folder / "Annotations/one.xml").write_text(XML.replace("dog", "zebra"))
    data = boxel.data.read(folder)
    assert [(c.id, c.name) for c in data.categories] == [(1, "cat"), (2, "zebra")]


def test_masks_go_to_the_box_of_their_class(folder):
    # Object 1 is the cat and 2 the dog: not the order of the XML.
    cat, dog = (1, 10, 10, 20), (0, 5, 0, 4)
    segment(folder, [(cat, 1), (dog, 2), ((9, 10, 0, 1), 255)], [(cat, 8), (dog, 12)])
    data = boxel.data.read(folder)
    assert data.has_mask.tolist() == [True, True] and data.issues == []
    assert data.mask(0)[0:5, 0:4].all() and data.mask(0).sum() == 20
    assert data.mask(1)[1:10, 10:20].all() and data.mask(1).sum() == 90
    assert data.label_maps == ["SegmentationClass/one.png"] and data.void == 255


def test_a_mask_of_another_class_is_reported(folder):
    cat, dog = (1, 10, 10, 20), (0, 5, 0, 4)
    segment(folder, [(cat, 1), (dog, 2)], [(cat, 8), (dog, 15)])
    data = boxel.data.read(folder)
    assert data.has_mask.tolist() == [False, True]
    assert [issue.kind for issue in data.issues] == ["mask-without-box"]


def test_masks_without_xml_are_instances(folder):
    cat, dog = (1, 10, 10, 20), (0, 5, 0, 4)
    segment(folder, [(cat, 1), (dog, 2)], [(cat, 8), (dog, 12)])
    (folder / "Annotations/one.xml").unlink()
    (folder / "ImageSets/Segmentation").mkdir(parents=True)
    (folder / "ImageSets/Segmentation/train.txt").write_text("one\n")
    data = boxel.data.read(folder / "ImageSets/Segmentation/train.txt")
    assert data.boxes.tolist() == [[10, 1, 20, 10], [0, 0, 4, 5]]
    assert [data.categories[label].name for label in data.labels] == ["cat", "dog"]


def test_sizes_come_from_the_image_if_the_xml_has_none(folder):
    (folder / "Annotations/one.xml").write_text(XML.replace("<width>20</width>", ""))
    data = boxel.data.read(folder)
    assert (data.widths[0], data.heights[0]) == (20, 10)


def test_image_sets_select_images(folder):
    (folder / "Annotations/two.xml").write_text(XML)
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/dog_val.txt").write_text("two  1\n\ntwo -1\n")
    assert boxel.data.read(folder).image_ids == ["one", "two"]
    assert boxel.data.read(folder / "ImageSets/Main/dog_val.txt").image_ids == ["two"]
    assert boxel.data.read(folder / "Annotations/one.xml").image_ids == ["one"]
    assert (
        boxel.data.read(folder, images=folder / "JPEGImages").image_path(0) == folder / "JPEGImages/one.jpg"
    )


def test_round_trip(folder, tmp_path_factory):
    (folder / "Annotations/one.xml").write_text(XML.replace("<xmin>11<", "<xmin>10.70000076293945<"))
    cat, dog = (1, 10, 10, 20), (0, 5, 0, 4)
    segment(folder, [(cat, 2), (dog, 1)], [(cat, 8), (dog, 12)])
    data = boxel.data.read(folder)
    out = tmp_path_factory.mktemp("out")
    assert voc.write(data, out) == []
    again = boxel.data.read(out)
    np.testing.assert_allclose(again.boxes, data.boxes, rtol=0, atol=1e-9)
    assert again.ids == data.ids and again.image_ids == data.image_ids and again.categories == data.categories
    assert again.segmentations.tolist() == data.segmentations.tolist()
    assert again.label_maps == ["SegmentationClass/one.png"]
    for name in ("SegmentationClass", "SegmentationObject"):
        np.testing.assert_array_equal(
            Image.open(folder / name / "one.png"), Image.open(out / name / "one.png")
        )
    assert Image.open(out / "SegmentationClass/one.png").getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert "<xmin>1</xmin>" in (out / "Annotations/one.xml").read_text()


def test_void_is_kept(folder, tmp_path_factory):
    cat, dog, rim = (1, 10, 10, 20), (0, 5, 0, 4), (0, 1, 9, 20)
    segment(folder, [(cat, 2), (dog, 1), (rim, 255)], [(cat, 8), (dog, 12), (rim, 255)])
    out = tmp_path_factory.mktemp("out")
    assert voc.write(boxel.data.read(folder), out) == []
    for name in ("SegmentationClass", "SegmentationObject"):
        np.testing.assert_array_equal(
            Image.open(folder / name / "one.png"), Image.open(out / name / "one.png")
        )


def test_a_dataset_with_classes_only_keeps_them(folder, tmp_path_factory):
    cat, rim = (1, 10, 10, 20), (0, 1, 9, 20)
    segment(folder, [], [(cat, 8), (rim, 255)])
    (folder / "SegmentationObject/one.png").unlink()
    out = tmp_path_factory.mktemp("out")
    assert voc.write(boxel.data.read(folder), out) == []
    assert not (out / "SegmentationObject").exists()
    np.testing.assert_array_equal(
        Image.open(folder / "SegmentationClass/one.png"), Image.open(out / "SegmentationClass/one.png")
    )
    assert (out / "ImageSets/Segmentation/trainval.txt").read_text() == "one\n"
    assert boxel.data.read(out).label_maps == ["SegmentationClass/one.png"]


def test_a_label_map_of_other_classes_keeps_only_void(folder, tmp_path_factory):
    cat, dog, rim = (1, 10, 10, 20), (0, 5, 0, 4), (0, 1, 9, 20)
    segment(folder, [(dog, 1), (rim, 255)], [(cat, 8), (dog, 12), (rim, 255)])
    data, out = boxel.data.read(folder), tmp_path_factory.mktemp("out")
    (loss,) = voc.write(data.select_categories(["dog"]), out)
    assert "1 label maps are not kept whole" in loss and "SegmentationClass/one.png" in loss
    written = np.array(Image.open(out / "SegmentationClass/one.png"))
    # The cat has no mask, and what 8 means in the map is no longer known.
    assert (written == 255).sum() == 11 and (written == 12).sum() == 20 and (written == 8).sum() == 0
    (folder / "SegmentationClass/one.png").write_bytes(b"no png")
    (loss,) = voc.write(data, tmp_path_factory.mktemp("out"))
    assert "1 label maps" in loss and "cannot be read" in loss


@pytest.mark.parametrize("format", ["coco", "yolo", "labelme", "sbd"])
def test_lost_label_maps_are_counted(folder, tmp_path, format):
    segment(folder, [((1, 10, 10, 20), 1), ((0, 5, 0, 4), 2)], [((1, 10, 10, 20), 8), ((0, 5, 0, 4), 12)])
    data = boxel.data.read(folder)
    with pytest.warns(
        UserWarning, match="holds no label maps: 1 are left out, e.g. .*SegmentationClass/one.png"
    ):
        boxel.data.write(data, tmp_path / ("a.json" if format == "coco" else "out"), format)


@pytest.mark.slow
def test_real_images_survive_a_round_trip(shared_data, tmp_path):
    data = boxel.data.read(shared_data / "voc2007")
    assert len(data) == 473 and data.issues == []
    masked = boxel.data.read(shared_data / "voc2007/ImageSets/Segmentation/train.txt")
    assert len(masked) == 20 and masked.has_mask.all() and len(masked.labels) == data.has_mask.sum()
    assert voc.write(masked, tmp_path) == []
    again = boxel.data.read(tmp_path)
    assert again.boxes.tolist() == masked.boxes.tolist()
    assert again.segmentations.tolist() == masked.segmentations.tolist()
    stem = str(masked.image_ids[0])
    theirs = np.array(Image.open(shared_data / f"voc2007/SegmentationClass/{stem}.png"))
    ours = np.array(Image.open(tmp_path / f"SegmentationClass/{stem}.png"))
    assert (theirs == 255).any()  # void around each object
    np.testing.assert_array_equal(theirs, ours)
    palette = Image.open(shared_data / f"voc2007/SegmentationClass/{stem}.png").getpalette()
    assert Image.open(tmp_path / f"SegmentationClass/{stem}.png").getpalette() == palette


LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + k)} "{f"&{chr(97 + k)};" * 10}">' for k in range(9))
    + "]><annotation><filename>&j;</filename></annotation>"
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0",
        XML[:150].encode(),
        LAUGHS.encode(),
        b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><filename>&x;</filename></annotation>',
        b'<?xml version="1.0" encoding="nonsense"?><annotation/>',
        b"<a>" * 50_000,
        b"<a>" * 50_000 + b"</a>" * 50_000,
    ],
)
def test_malicious_files_cost_only_themselves(folder, content):
    (folder / "Annotations/bad.xml").write_bytes(content)
    data = boxel.data.read(folder)
    assert "one" in data.image_ids and len(data.labels) == 2
    assert "\n" not in "".join(issue.message for issue in data.issues)


@pytest.mark.parametrize(
    "old, new",
    [
        ("<xmin>1<", "<xmin>one<"),
        ("<xmin>1</xmin>", ""),
        ("<name>dog</name>", ""),
        ("<name>dog</name>", "<name/>"),
    ],
)
def test_an_invalid_object_costs_only_itself(folder, old, new):
    (folder / "Annotations/one.xml").write_text(XML.replace(old, new, 1))
    data = boxel.data.read(folder)
    assert data.boxes.tolist() == [[10, 1, 20, 10]]
    assert [issue.kind for issue in data.issues] == ["bad-annotation"]


@pytest.mark.parametrize("png", [b"", b"not a png", "size", "mode"])
def test_an_invalid_segmentation_keeps_the_boxes(folder, png):
    (folder / "SegmentationObject").mkdir()
    file = folder / "SegmentationObject/one.png"
    if png == "size":
        Image.new("L", (5, 5), 1).save(file)
    elif png == "mode":
        Image.new("RGB", (20, 10)).save(file)
    else:
        file.write_bytes(png)
    data = boxel.data.read(folder)
    assert len(data.labels) == 2 and not data.has_mask.any()
    assert [issue.kind for issue in data.issues] == ["bad-file"]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "Annotations").mkdir()
    return folder


@pytest.mark.slow
@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    st.integers(0, len(XML)), st.text(max_size=6) | st.sampled_from(["9" * 500, "-1e999", "nan", "../" * 9])
)
def test_fuzzed_files_cost_only_themselves(fuzzed, at, junk):
    for content in (XML[:at] + junk, XML[:at] + junk + XML[at:], XML[:at] + junk + XML[at + len(junk) :]):
        (fuzzed / "Annotations/one.xml").write_bytes(content.encode("utf-8", "replace"))
        data = voc.read(fuzzed)
        assert len(data) == 1 and len(data.boxes) == len(data.labels) == len(data.ids)
        voc.write(data, fuzzed / "out")


def test_a_folder_without_a_dataset_is_an_error(tmp_path):
    with pytest.raises(BoxelError, match="no VOC dataset"):
        boxel.data.read(tmp_path, format="voc")


def test_xml_of_other_programs_is_named(tmp_path):
    (tmp_path / "a.xml").write_text("<Document><object><name>cat</name></object></Document>")
    with pytest.raises(BoxelError, match=r"a\.xml: this is XML of another program, not VOC's"):
        boxel.data.read(tmp_path / "a.xml")
    (tmp_path / "b.xml").write_text("<annotation/>")
    data = boxel.data.read(tmp_path)
    assert [issue.kind for issue in data.issues] == ["bad-file"]
    assert "its outermost element is <Document>" in data.issues[0].message

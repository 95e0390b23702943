"""Reading and writing Pascal VOC."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boxel.data
from boxel.data.formats import voc
from boxel.data.label_maps import make_label_map, pixel_classes
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


def test_a_label_map_keeps_the_classes_that_are_left(folder, tmp_path_factory):
    cat, dog, rim = (1, 10, 10, 20), (0, 5, 0, 4), (0, 1, 9, 20)
    segment(folder, [(dog, 1), (rim, 255)], [(cat, 8), (dog, 12), (rim, 255)])
    data, out = boxel.data.read(folder), tmp_path_factory.mktemp("out")
    assert voc.write(data.select_categories(["dog"]), out) == []
    written = np.array(Image.open(out / "SegmentationClass/one.png"))
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
        try:
            data = voc.read(fuzzed)
        except BoxelError as error:
            assert "one.xml: " in str(error) and "\n" not in str(error)
            continue
        assert len(data) == 1 and len(data.boxes) == len(data.labels) == len(data.ids)
        voc.write(data, fuzzed / "out")


def test_a_folder_without_a_dataset_is_an_error(tmp_path):
    with pytest.raises(BoxelError, match="no VOC dataset"):
        boxel.data.read(tmp_path, format="voc")


def test_xml_of_other_programs_is_named(tmp_path):
    (tmp_path / "a.xml").write_text("<Document><object><name>cat</name></object></Document>")
    with pytest.raises(
        BoxelError, match=r"a\.xml: its XML is of another kind \(<Document>\), not Pascal VOC's"
    ):
        boxel.data.read(tmp_path / "a.xml")
    (tmp_path / "b.xml").write_text("<annotation/>")
    data = boxel.data.read(tmp_path)
    assert [issue.kind for issue in data.issues] == ["bad-file"]
    assert "of another kind (<Document>)" in data.issues[0].message


def add_object(folder, inside, name="one", **more):
    """Write one XML file with these elements in its only object."""
    text = f"<object><name>cat</name>{inside}</object>"
    fields = {"filename": f"{name}.jpg", **more}
    head = "".join(f"<{tag}>{value}</{tag}>" for tag, value in fields.items())
    size = "<size><width>20</width><height>10</height></size>"
    (folder / f"Annotations/{name}.xml").write_text(f"<annotation>{head}{size}{text}</annotation>")


def bounds(*values):
    tags = zip(("xmin", "ymin", "xmax", "ymax"), values, strict=True)
    return "<bndbox>" + "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags) + "</bndbox>"


POLYGON = "<polygon><x1>2</x1><y1>1</y1><x2>8</x2><y2>1</y2><x3>8</x3><y3>6</y3></polygon>"


@pytest.mark.parametrize(
    "polygon",
    [
        POLYGON,
        "<polygon><pt><x>2</x><y>1</y></pt><pt><x>8</x><y>1</y></pt><pt><x>8</x><y>6</y></pt></polygon>",
    ],
)
@pytest.mark.parametrize("box", ["", bounds(3, 2, 8, 6)])
def test_a_polygon_is_a_mask(folder, polygon, box):
    add_object(folder, polygon + box)
    data = boxel.data.read(folder)
    assert data.segmentation(0) == [[2, 1, 8, 1, 8, 6]] and data.boxes.tolist() == [[2, 1, 8, 6]]


def test_a_rotated_box_is_the_box_around_it_and_no_mask(folder, tmp_path_factory):
    add_object(
        folder,
        "<type>robndbox</type><robndbox><cx>10</cx><cy>5</cy><w>6</w><h>2</h><angle>1.5707963</angle></robndbox>",
    )
    data = boxel.data.read(folder)
    np.testing.assert_allclose(data.boxes, [[9, 2, 11, 8]], atol=1e-5)
    assert not data.has_mask.any()
    out = tmp_path_factory.mktemp("out")
    voc.write(data, out)
    again = boxel.data.read(out)
    np.testing.assert_allclose(again.boxes, data.boxes, atol=1e-5)
    corners = [json.loads(d.extras[0])["corners"] for d in (data, again)]
    np.testing.assert_allclose(*corners, atol=1e-5)


@pytest.mark.parametrize(
    "written, box",
    [
        ((3, 2, 8, 6), [2, 1, 8, 6]),
        ((8, 6, 3, 2), [8, 6, 2, 1]),  # swapped: the sides are those of the line above
        (("3.5", "2.0", "8.25", "1e1"), [2.5, 1, 8.25, 10]),
    ],
)
def test_boxes_are_one_based(folder, written, box):
    add_object(folder, bounds(*written))
    assert boxel.data.read(folder).boxes.tolist() == [box]


def test_a_dataset_that_counts_from_zero_is_read_so(folder, caplog):
    add_object(folder, bounds(5, 0, 8, 6), "two")
    data = boxel.data.read(folder)
    assert data.boxes.tolist() == [[1, 1, 4, 5], [11, 2, 20, 10], [5, 0, 8, 6]]
    assert [record.message for record in caplog.records] == [
        f"{folder}: its boxes count pixels from 0, e.g. in two.xml, and are read so."
    ]
    # So is a part of it.
    assert boxel.data.read(folder / "Annotations/one.xml").boxes.tolist() == [[1, 1, 4, 5], [11, 2, 20, 10]]


def test_a_stale_file_name_gives_way_to_the_stem(folder):
    Image.new("RGB", (20, 10)).save(folder / "JPEGImages/b.jpg")
    add_object(folder, bounds(3, 2, 8, 6), "b", filename="one.jpg")
    data = boxel.data.read(folder)
    assert data.paths == ["JPEGImages/b.jpg", "JPEGImages/one.jpg"]
    assert [issue.kind for issue in data.issues] == ["ambiguous-image"]
    (folder / "JPEGImages/b.jpg").unlink()
    data = boxel.data.read(folder)
    assert data.paths == ["JPEGImages/b.jpg", "JPEGImages/one.jpg"] and len(data.issues) == 1


@pytest.mark.parametrize("filename", ["one", "one.jpg", "C:\\x\\one.jpg", "other.png", ""])
def test_suffixes_in_another_case_are_found(folder, filename):
    (folder / "JPEGImages/one.jpg").rename(folder / "JPEGImages/one.JPG")
    (folder / "Annotations/one.xml").rename(folder / "Annotations/one.XML")
    (folder / "Annotations/one.XML").write_text(XML.replace("one.jpg", filename))
    (folder / "Annotations/._one.xml").write_bytes(b"\0\5\x16\7")
    data = boxel.data.read(folder)
    assert data.paths == ["JPEGImages/one.JPG"] and data.issues == [] and len(data.ids) == 2


@pytest.mark.parametrize(
    "declared, encoding",
    [
        ("GBK", "gbk"),
        ("GB2312", "gbk"),
        ("Big5", "big5"),
        ("ISO-8859-1", "latin-1"),
        ("UTF-16", "utf-16"),
        ("utf-8", "utf-8-sig"),
        ("Shift_JIS", "shift-jis"),
    ],
)
def test_text_is_decoded_as_declared(folder, declared, encoding):
    name = {"latin-1": "chaîne", "big5": "貓犬"}.get(encoding, "猫犬")
    text = f'<?xml version="1.0" encoding="{declared}"?>\n' + XML.replace("dog", name)
    (folder / "Annotations/one.xml").write_bytes(text.encode(encoding))
    data = boxel.data.read(folder)
    assert {c.name for c in data.categories} == {"cat", name} and data.issues == []


@pytest.mark.parametrize("declared", ["zip", "rot13", "idna", "nonsense"])
def test_an_encoding_that_is_none_of_text_is_refused(folder, declared):
    (folder / "Annotations/two.xml").write_text(f'<?xml version="1.0" encoding="{declared}"?>{XML}')
    (issue,) = boxel.data.read(folder).issues
    assert (
        f"two.xml: cannot be read as XML (the encoding that it declares, {declared}, is not known)"
        in issue.message
    )


@pytest.mark.parametrize(
    "xml, whose",
    [
        ("<annotations><image id='0' name='a.jpg'/></annotations>", "CVAT's"),
        ("<html><body/></html>", "a web page's"),
        ("<doc><object/></doc>", "of another kind (<doc>)"),
        ("<annotation><note/></annotation>", "of another kind (<annotation>)"),
    ],
)
def test_xml_of_another_kind_is_named(folder, xml, whose):
    (folder / "Annotations/a.xml").write_text(xml)
    data = boxel.data.read(folder, format="voc")
    assert data.image_ids == ["one"] and f"its XML is {whose}, not Pascal VOC's" in data.issues[0].message
    with pytest.raises(BoxelError, match=r"a\.xml: its XML is "):
        boxel.data.read(folder / "Annotations/a.xml", format="voc")


def test_a_dataset_without_objects_has_no_classes(folder):
    (folder / "Annotations/one.xml").write_text("<annotation><filename>one.jpg</filename></annotation>")
    data = boxel.data.read(folder)
    assert len(data) == 1 and data.categories == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "text, stems",
    [
        ("a b\nc\n", ["a b", "c"]),
        ("two  1\ntwo -1\nthree  0\n", ["two", "three"]),
        ("/data/JPEGImages/a.JPG\nC:\\x\\b.v2.jpg\r\n\n", ["a", "b.v2"]),
        ("JPEGImages/a b.jpg SegmentationClass/a b.png\nc.jpeg labels/c.png\n", ["a b", "c"]),
    ],
)
def test_lists_of_any_machine_are_read(tmp_path, encoding, text, stems):
    (tmp_path / "train.txt").write_bytes(text.encode(encoding))
    assert voc.read_image_set(tmp_path / "train.txt") == stems


def test_a_listed_image_without_xml_is_reported(folder):
    (folder / "ImageSets/Main").mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("one\ngone\n")
    data = boxel.data.read(folder / "ImageSets/Main/train.txt")
    assert data.image_ids == ["one"] and "it lists gone" in data.issues[0].message


def test_splits_survive(folder, tmp_path_factory):
    for name in ("two", "three"):
        add_object(folder, bounds(3, 2, 8, 6), name)
    (folder / "ImageSets/Main").mkdir(parents=True)
    for split, text in {
        "train": "one\n",
        "val": "two\none\n",
        "test": "three\n",
        "cat_train": "two 1\n",
    }.items():
        (folder / f"ImageSets/Main/{split}.txt").write_text(text)
    data = boxel.data.read(folder)
    assert dict(zip(data.image_ids, data.splits, strict=True)) == {
        "one": "train",
        "two": "val",
        "three": "test",
    }
    assert [issue.kind for issue in data.issues] == ["several-splits"]
    out = tmp_path_factory.mktemp("out")
    voc.write(data, out)
    lists = {file.stem: file.read_text().split() for file in (out / "ImageSets/Main").iterdir()}
    assert lists == {"trainval": ["one", "two"], "train": ["one"], "val": ["two"], "test": ["three"]}
    (out / "boxel-ids.json").unlink()
    assert boxel.data.read(out).splits == data.splits


def test_fields_are_carried_along_and_can_be_edited(folder, tmp_path_factory):
    part = "<part><name>head</name>" + bounds(3, 2, 5, 4) + "</part>"
    fields = "<pose>Left</pose><truncated>1</truncated><difficult>0</difficult><occluded>1</occluded>"
    named = "<attributes><attribute><name>is wet</name><value>false</value></attribute></attributes>"
    add_object(folder, bounds(3, 2, 8, 6) + fields + part + part + named, source="<database>x</database>")
    data = boxel.data.read(folder)
    head = {"name": "head", "bndbox": {"xmin": 3, "ymin": 2, "xmax": 5, "ymax": 4}}
    expected = {
        "pose": "Left",
        "truncated": 1,
        "occluded": 1,
        "part": [head, head],
        "attributes": {"is wet": False},
    }
    assert json.loads(data.extras[0]) == expected
    assert json.loads(data.image_extras[0]) == {"source": {"database": "x"}}
    out = tmp_path_factory.mktemp("out")
    voc.write(data, out)
    for with_ids in (True, False):
        if not with_ids:
            (out / "boxel-ids.json").unlink()
        again = boxel.data.read(out)
        assert json.loads(again.extras[0]) == expected
        assert json.loads(again.image_extras[0]) == {"source": {"database": "x"}}
    voc.write(data, out)
    text = (out / "Annotations/one.xml").read_text()
    (out / "Annotations/one.xml").write_text(
        text.replace("Left", "Right").replace("<occluded>1</occluded>", "")
    )
    del expected["occluded"]
    assert json.loads(boxel.data.read(out).extras[0]) == expected | {"pose": "Right"}


@settings(derandomize=True, max_examples=20, deadline=None)
@given(draw=st.data())
def test_a_random_dataset_survives(convert_random, check_same, draw):
    data, found, _ = convert_random(draw, "voc")
    check_same(found, data, but=("trusted", "source", "quality", "areas"))  # of masks that lie under others


@pytest.mark.parametrize("layout", ["{}/one", "Annotations/{}/one"])
def test_folders_of_splits_are_read(folder, layout):
    images = layout.replace("Annotations", "JPEGImages")
    for split, label in (("train", "dog"), ("valid", "cat")):
        xml = folder / f"in/{layout.format(split)}.xml"
        image = folder / f"in/{images.format(split)}.jpg"
        for file in (xml, image):
            file.parent.mkdir(parents=True, exist_ok=True)
        inside = f"<object><name>{label}</name>{bounds(1, 1, 4, 5)}</object>"
        xml.write_text(f"<annotation><filename>one.jpg</filename>{inside}</annotation>")
        Image.new("RGB", (20, 10)).save(image)
    assert boxel.data.recognize(folder / "in") == "voc"
    data = boxel.data.read(folder / "in")
    start = "JPEGImages/" if "Annotations" in layout else ""
    assert data.paths == [f"{start}train/one.jpg", f"{start}valid/one.jpg"] and data.issues == []
    assert data.splits == ["train", "val"] and [data.categories[label].name for label in data.labels] == [
        "dog",
        "cat",
    ]
    boxel.data.write(data, folder / "out", "voc")
    assert boxel.data.read(folder / "out").splits == data.splits


def test_fields_that_xml_cannot_hold_stay_in_the_ids_file(folder):
    deep = json.loads('{"a":' * 300 + "1" + "}" * 300)
    attributes = {"k": [1], "l": "7"}
    fields = {"1 x": 2, "n": [[1]], "text": "a\x01b", "deep": deep, "attributes": attributes}
    data = boxel.data.read(folder)
    data.extras[0] = json.dumps(fields).encode()
    boxel.data.write(data, folder / "out", "voc")
    assert json.loads(boxel.data.read(folder / "out").extras[0]) == fields


def test_label_maps_of_a_semantic_dataset_get_the_values_of_voc_and_come_back(tmp_path):
    pixels = np.zeros((6, 8), np.uint8)
    pixels[1:3, 1:5], pixels[4:, 5:], pixels[0, 0] = 20, 30, 255
    for sub, values in (("images", np.zeros((6, 8, 3), np.uint8)), ("labels", pixels)):
        (tmp_path / "semantic" / sub).mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / "semantic" / sub / "a.png")
    (tmp_path / "semantic/classes.txt").write_text("0 background\n20 zebra\n30 ant\n")
    boxel.convert(tmp_path / "semantic", tmp_path / "voc", format="voc")
    written = np.array(Image.open(tmp_path / "voc/SegmentationClass/a.png"))
    wanted = {0: 0, 20: 2, 30: 1, 255: 255}  # classes in alphabetical order
    assert written.tolist() == [[wanted[value] for value in row] for row in pixels.tolist()]
    boxel.convert(tmp_path / "voc", tmp_path / "again", format="semantic")
    first, again = (boxel.read(tmp_path / name) for name in ("semantic", "again"))
    names = [[c.name for c in pixel_classes(data)] for data in (first, again)]
    assert set(names[0]) == set(names[1]) == {"background", "zebra", "ant"}
    maps = [make_label_map(data, 0) for data in (first, again)]
    shown = [
        np.array([*own, *[""] * (256 - len(own))])[labels] for own, labels in zip(names, maps, strict=True)
    ]
    assert (shown[0] == shown[1]).all() and (maps[1] == 255).sum() == 1


@pytest.mark.parametrize("kind", ["bits", "16 bits"])
def test_numbers_of_objects_may_have_1_or_16_bits(folder, kind):
    segment(folder, [((0, 5, 0, 4), 1)], [((0, 5, 0, 4), 12)])
    file = folder / "SegmentationObject/one.png"
    pixels = np.array(Image.open(file))
    Image.fromarray(pixels.astype(bool) if kind == "bits" else pixels.astype(np.uint16) * 300).save(file)
    data = boxel.data.read(folder)
    assert data.issues == [] and data.has_mask.tolist() == [True, False] and data.mask(0).sum() == 20

"""Reading and writing CVAT for images."""

import json
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import boxel.data
from boxel.data.formats.row_runs import decode_rows, encode_rows
from boxel.data.formats.xml_files import find_root
from boxel.utils.errors import BoxelError

META = """<meta><task><name>t</name><labels>
<label><name>cat</name><color>#00ff00</color><attributes><attribute><name>pose</name>
<input_type>text</input_type></attribute></attributes></label>
<label><name>dog</name><attributes/></label>
<label><name>good photo</name><type>tag</type></label></labels></task></meta>"""


def make(folder, shapes, attributes='id="4" name="one.png" width="100" height="50"', meta=META, more=""):
    (folder / "images").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 50)).save(folder / "images" / "one.png")
    text = f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>{meta}'
    text += f"<image {attributes}>{shapes}</image>{more}</annotations>"
    (folder / "annotations.xml").write_text(text, encoding="utf-8")
    return folder


BOX = '<box label="dog" occluded="0" source="manual" xtl="1.50" ytl="2" xbr="30" ybr="40" z_order="0"></box>'


def extras(data, row):
    return json.loads(data.extras[row] or "{}")


def test_shapes_become_boxes_and_masks(tmp_path):
    shapes = f"""{BOX}
    <polygon label="cat" source="auto" occluded="1" z_order="3" group_id="2" points="10,10;30,10;30,40">
      <attribute name="pose">lying</attribute></polygon>
    <ellipse label="cat" cx="50" cy="25" rx="20" ry="10" rotation="90"/>
    <mask label="bird" source="manual" occluded="0" rle="1, 2, 3" left="90" top="20" width="3" height="2" z_order="0"/>
    <tag label="good photo" source="manual"/>"""
    for path in (make(tmp_path, shapes), tmp_path / "annotations.xml"):
        assert boxel.data.recognize(path) == "cvat"
        data = boxel.data.read(path)
        assert data.image_ids == [4] and data.paths == ["one.png"] and data.root == tmp_path / "images"
        assert data.ids == ["one:1", "one:2", "one:3", "one:4"] and data.issues == []
        assert [c.name for c in data.categories] == ["cat", "dog", "bird"]
        assert data.labels.tolist() == [1, 0, 0, 2]
        np.testing.assert_allclose(
            data.boxes, [[1.5, 2, 30, 40], [10, 10, 30, 40], [40, 5, 60, 45], [91, 20, 93, 21]], atol=1e-3
        )
        assert data.has_mask.tolist() == [False, True, True, True]
        assert data.segmentation(1) == [[10, 10, 30, 10, 30, 40]]
        assert data.mask(2).sum() == pytest.approx(np.pi * 200, rel=0.02)
        assert np.argwhere(data.mask(3)).tolist() == [[20, 91], [20, 92]]
        shared = {"occluded": 1, "z_order": 3, "group_id": 2, "attributes": {"pose": "lying"}}
        assert extras(data, 1) == shared | {"cvat": {"source": "auto"}} and data.extras[0] is None
        assert json.loads(data.image_extras[0]) == {"tags": ["good photo"]}
        assert json.loads(data.categories[0].extras)["color"] == "#00ff00"


def test_a_rotated_box_becomes_the_box_around_it_and_never_a_mask(tmp_path):
    shape = BOX.replace(
        'xtl="1.50" ytl="2" xbr="30" ybr="40"', 'xtl="40" ytl="20" xbr="60" ybr="30" rotation="90.00"'
    )
    data = boxel.data.read(make(tmp_path, shape))
    np.testing.assert_allclose(data.boxes, [[45, 15, 55, 35]], atol=1e-6)
    assert not data.has_segmentation.any()
    np.testing.assert_allclose(
        extras(data, 0)["corners"], [[55, 15], [55, 35], [45, 35], [45, 15]], atol=1e-6
    )
    boxel.data.write(data, tmp_path / "out", "cvat")
    box = ElementTree.parse(tmp_path / "out" / "annotations.xml").find("image/box")
    assert {key: float(box.get(key)) for key in ("xtl", "ytl", "xbr", "ybr", "rotation")} == pytest.approx(
        {"xtl": 40, "ytl": 20, "xbr": 60, "ybr": 30, "rotation": 90}
    )
    data.boxes[0, 0] -= 3  # the corners show no longer where it is
    boxel.data.write(data, tmp_path / "edited", "cvat")
    assert "rotation" not in (tmp_path / "edited" / "annotations.xml").read_text()


def test_what_encloses_nothing_is_left_out_and_reported_once(tmp_path):
    line = '<polyline label="cat" points="1,1;2,2"/>'
    skeleton = '<skeleton label="cat"><points label="nose" points="1,1"/></skeleton>'
    data = boxel.data.read(make(tmp_path, f"{line}{line}{BOX}{skeleton}"))
    assert len(data.ids) == 1
    assert [(issue.kind, issue.values["count"]) for issue in data.issues] == [
        ("not-an-object", 2),
        ("not-an-object", 1),
    ]
    assert "2 x polylines" in data.issues[0].message and "1 x skeleton:" in data.issues[1].message


@pytest.mark.parametrize(
    "shape, reason",
    [
        ('<box label="cat" xtl="1" ytl="2" xbr="3"/>', "it has no ybr"),
        ('<box label="cat" xtl="1" ytl="2" xbr="x" ybr="4"/>', "could not convert"),
        ('<box label="cat" xtl="1" ytl="2" xbr="nan" ybr="4"/>', "not finite"),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', "it has no label"),
        ('<polygon label="cat" points="1,2;3,4"/>', "three or more pairs"),
    ],
)
def test_a_bad_shape_costs_only_itself(tmp_path, shape, reason):
    data = boxel.data.read(make(tmp_path, BOX + shape + BOX))
    assert data.ids == ["one:1", "one:3"]
    assert [issue.kind for issue in data.issues] == ["bad-annotation"]
    assert "one:2 cannot be read" in data.issues[0].message and reason in data.issues[0].message


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ('rle="1, 2" left="0" top="0" width="3" height="2"', "do not fill 3 x 2"),
        ('rle="-1, 7" left="0" top="0" width="3" height="2"', "do not fill"),
        ('rle="1.5, 4.5" left="0" top="0" width="3" height="2"', "not whole numbers"),
        ('rle="6" left="0" top="0" width="3" height="2"', "is empty"),
        ('left="0" top="0" width="3" height="2"', "it has no rle"),
        ('rle="0, 9" left="0" top="0" width="99999999" height="99999999"', "too large"),
    ],
)
def test_a_bad_mask_costs_only_the_mask(tmp_path, mask, reason):
    data = boxel.data.read(make(tmp_path, f'{BOX}<mask label="cat" {mask}/>'))
    assert data.ids == ["one:1", "one:2"] and not data.has_mask.any()
    assert data.boxes[1, :2].tolist() == [0, 0] and (data.boxes[1, 2:] >= [3, 2]).all()
    (issue,) = data.issues
    assert (
        issue.kind == "mask-invalid" and "one:2 cannot be read" in issue.message and reason in issue.message
    )


def test_a_mask_that_extends_past_the_image_is_cut(tmp_path):
    data = boxel.data.read(
        make(tmp_path, '<mask label="cat" rle="0.0, 6.0" left="98" top="-1" width="3" height="2"/>')
    )
    assert data.issues == [] and np.argwhere(data.mask(0)).tolist() == [[0, 98], [0, 99]]


def test_a_truncated_file_keeps_the_images_before_the_damage(tmp_path):
    folder = make(tmp_path, BOX, more=f'<image id="5" name="two.png" width="9" height="9">{BOX}</image>')
    text = (folder / "annotations.xml").read_text()
    (folder / "annotations.xml").write_text(text[: text.index("two.png")])
    data = boxel.data.read(folder)
    assert data.image_ids == [4] and "the images after one.png are left out" in data.issues[0].message
    (folder / "annotations.xml").write_text(text[:400])
    with pytest.raises(BoxelError, match="check that it is complete"):
        boxel.data.read(folder)


def test_tracks_among_images_and_points_are_left_out_by_count(tmp_path):
    shapes = BOX + '<points label="cat" points="1,1;2,2"/>' * 2 + '<skeleton label="cat"/>'
    track = '<track id="0" label="car"><box frame="0" xtl="1" ytl="1" xbr="2" ybr="2"/></track>'
    folder = make(tmp_path, shapes)
    file = folder / "annotations.xml"
    file.write_text(file.read_text().replace("</annotations>", f"{track}</annotations>"))
    data = boxel.data.read(folder)
    assert data.ids == ["one:1"]
    assert [issue.message.partition(": ")[2] for issue in data.issues] == [
        f"{what}: not a box, a polygon, an ellipse or a mask; left out."
        for what in ("2 x points", "1 x skeleton", "1 x track")
    ]


def test_other_xml_is_named(tmp_path):
    (tmp_path / "a.xml").write_text("<!-- x --><annotation/>")
    assert boxel.data.recognize(tmp_path / "a.xml") == "voc"
    with pytest.raises(BoxelError, match="not CVAT's XML; its outermost element is <annotation>"):
        boxel.data.read(tmp_path / "a.xml", format="cvat")


@pytest.mark.parametrize(
    "text, root",
    [
        ("<?xml version='1.0'?>\n<!-- <a> -->\n<!DOCTYPE b>\n<c d='e'/>", "c"),
        ("<!DOCTYPE a [<!ENTITY b 'c>'> ]>\n<d>", "d"),
        ("\ufeff  <e>", "e"),
        ("<" + "?><?" * 10_000, ""),
        ("<??>" * 16_000, ""),
        (" " * 65_000, ""),
        ("<!-- x", ""),
        ("<!DOCTYPE a [", ""),
        ("text", ""),
    ],
)
def test_the_outermost_element_is_found_in_no_time(tmp_path, text, root):
    (tmp_path / "a.xml").write_text(text, encoding="utf-8")
    start = time.process_time()
    assert find_root(tmp_path / "a.xml") == root
    assert time.process_time() - start < 2


def test_entities_are_refused(tmp_path):
    folder = make(tmp_path, BOX)
    text = (folder / "annotations.xml").read_text()
    bomb = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]>\n<annotations>'
    (folder / "annotations.xml").write_text(text.replace("<annotations>", bomb))
    assert boxel.data.recognize(folder) == "cvat"
    with pytest.raises(BoxelError, match="EntitiesForbidden"):
        boxel.data.read(folder)


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "gbk", "shift_jis", "euc-jp", "windows-1252", "latin-1"]
)
def test_encodings(tmp_path, encoding):
    name = "größe" if encoding in ("windows-1252", "latin-1") else "日本"
    folder = make(tmp_path, BOX.replace("dog", name))
    text = (folder / "annotations.xml").read_text(encoding="utf-8")
    declared = encoding.removesuffix("-sig")
    (folder / "annotations.xml").write_bytes(text.replace('"utf-8"', f'"{declared}"').encode(encoding))
    assert boxel.data.recognize(folder) == "cvat"
    assert boxel.data.read(folder).categories[-1].name == name


@pytest.mark.parametrize(
    "name", ["../one.png", "/etc/one.png", "C:\\data\\one.png", "https://x/y/one.png?a=1", "ONE.PNG"]
)
def test_images_are_found_in_the_folder_and_nowhere_else(tmp_path, name):
    data = boxel.data.read(make(tmp_path, BOX, f'id="0" name="{name}" width="100" height="50"'))
    assert data.paths == ["one.png"]
    data = boxel.data.read(make(tmp_path, BOX, 'id="0" name="../../../etc/passwd" width="100" height="50"'))
    assert data.paths == ["etc/passwd"]


def test_subsets_are_splits_and_ids_of_a_project_are_not_unique(tmp_path):
    more = f'<image id="4" name="a/one.png" subset="Validation" width="9" height="9">{BOX}</image>'
    more += '<image id="5" name="c.png" subset="default" width="9" height="9"/>'
    data = boxel.data.read(
        make(tmp_path, BOX, 'id="4" name="b/one.png" subset="Train" width="9" height="9"', more=more)
    )
    assert data.splits == ["train", "val", None]
    assert data.image_ids == ["b_one", "a_one", "c"] and data.ids == ["b_one:1", "a_one:1"]


def test_a_missing_size_is_that_of_the_image(tmp_path):
    mask = '<mask label="cat" rle="0, 6" left="97" top="48" width="3" height="2"/>'
    data = boxel.data.read(make(tmp_path, mask, 'id="0" name="one.png"'))
    assert data.image_size(0) == (100, 50) and data.boxes.tolist() == [[97, 48, 100, 50]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=6))
def test_runs_along_rows_round_trip(values):
    mask = np.array(values)
    code = encode_rows(mask)
    np.testing.assert_array_equal(decode_rows(code, *mask.shape), mask)
    runs = [int(run) for run in code.split(", ")]
    assert all(runs[1:])  # only the first, of background, may be empty


def test_edits_in_cvat_win_over_what_was_written(tmp_path):
    shape = BOX.replace("></box>", '><attribute name="pose">sitting</attribute></box>')
    data = boxel.data.read(make(tmp_path, shape))
    data = boxel.data.Annotations(**vars(data) | {"ids": [77], "quality": [0.5]})
    boxel.data.write(data, tmp_path / "out", "cvat")
    file = tmp_path / "out" / "annotations.xml"
    file.write_text(file.read_text().replace("sitting", "running").replace('xbr="30"', 'xbr="33"'))
    found = boxel.data.read(tmp_path / "out")
    assert found.ids == [77] and found.boxes.tolist() == [[1.5, 2, 33, 40]]
    assert extras(found, 0) == {"attributes": {"pose": "running"}} and np.isnan(found.quality[0])


def test_attributes_keep_their_types_if_others_are_edited(tmp_path):
    data = boxel.data.read(make(tmp_path, BOX))
    stated = {"ripe": True, "count": 3, "weight": 2.50, "sizes": [1, 2], "none": None, "name": "true"}
    extras_before = np.array([json.dumps({"attributes": stated, "track_id": 7}).encode()], dtype=object)
    tags = [{"label": "day", "attributes": {"hour": 9}}]
    changed = {"extras": extras_before, "image_extras": [json.dumps({"tags": tags}).encode()]}
    with pytest.warns(
        boxel.data.ConversionWarning, match=r"track_id \(1 object\): boxel-ids.json keeps them"
    ):
        boxel.data.write(replace(data, **changed), tmp_path / "out", "cvat")
    found = boxel.data.read(tmp_path / "out")
    assert extras(found, 0) == {"attributes": stated, "track_id": 7}
    assert json.loads(found.image_extras[0]) == {"tags": tags}
    file = tmp_path / "out" / "annotations.xml"
    file.write_text(
        file.read_text().replace('"ripe">true', '"ripe">false').replace(">9<", ">10<").replace(">3<", ">few<")
    )
    edited = boxel.data.read(tmp_path / "out")
    assert extras(edited, 0)["attributes"] == stated | {"ripe": False, "count": "few"}
    assert json.loads(edited.image_extras[0])["tags"][0]["attributes"] == {"hour": 10}


def test_datumaro_reads_what_is_written(tmp_path):
    datumaro = pytest.importorskip("datumaro")
    mask = '<mask label="bird" rle="1, 2, 3" left="90" top="20" width="3" height="2" z_order="0"/>'
    polygon = '<polygon label="cat" points="10,10;30,10;30,40"/>'
    boxel.data.write(boxel.data.read(make(tmp_path, BOX + polygon + mask)), tmp_path / "out", "cvat")
    (item,) = datumaro.Dataset.import_from(str(tmp_path / "out"), "cvat")
    box, outline, pixels = item.annotations
    assert box.points == [1.5, 2, 30, 40] and outline.points == [10, 10, 30, 10, 30, 40]
    assert np.argwhere(pixels.image).tolist() == [[20, 91], [20, 92]]
    second = '<image id="5" name="two.png" width="100" height="50"/>'
    split = make(tmp_path, BOX, 'id="4" name="one.png" subset="Train" width="100" height="50"', more=second)
    Image.new("RGB", (100, 50)).save(tmp_path / "images" / "two.png")
    boxel.data.write(boxel.data.read(split), tmp_path / "split", "cvat")
    items = [*datumaro.Dataset.import_from(str(tmp_path / "split"), "cvat")]
    assert [(item.id, item.subset) for item in items] == [("one", "train"), ("two", "default")]

"""XML in the encoding that it declares, and in what programs write under that name."""

import pytest
from PIL import Image

import boxel.data
from boxel.utils.errors import BoxelError

VOC = """<annotation><filename>a.png</filename><size><width>40</width><height>30</height></size><object>
<name>NAME</name><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>20</ymax></bndbox></object></annotation>"""
CVAT = """<annotations><version>1.1</version><image id="0" name="a.png" width="40" height="30">
<box label="NAME" xtl="2" ytl="3" xbr="20" ybr="20"/></image></annotations>"""


@pytest.mark.parametrize("text", [VOC, CVAT], ids=["voc", "cvat"])
@pytest.mark.parametrize(
    ("declared", "encoding", "name"),
    [
        ("GB2312", "gbk", "朱镕基"),  # a character that GB2312 lacks
        ("gbk", "gb18030", "㐀犬"),  # one that GBK lacks
        ("Shift_JIS", "cp932", "①号機"),
        ("gbk", "gbk", "联通"),  # whose bytes are valid UTF-8
        ("gbk", "utf-8", "猫犬"),  # whose bytes are valid GBK
        ("iso-8859-1", "utf-8", "größe"),
        ("iso-8859-1", "latin-1", "größe"),
        ("gbk", "utf-8-sig", "猫犬"),
        ("utf-16", "utf-8", "猫犬"),  # as .NET writes from a string
        ("utf-16", "utf-16-le", "猫犬"),
        ("utf-16", "utf-16-be", "猫犬"),
        ("utf-16", "utf-16", "猫犬"),
        ("us-ascii", "utf-8", "größe"),
    ],
)
def test_names_survive_what_the_declaration_gets_wrong(tmp_path, text, declared, encoding, name):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    content = f'<?xml version="1.0" encoding="{declared}"?>\n' + text.replace("NAME", name)
    (tmp_path / "a.xml").write_bytes(content.encode(encoding))
    data = boxel.data.read(tmp_path)
    assert [category.name for category in data.categories] == [name] and not data.issues
    assert data.boxes.tolist() == [[2, 3, 20, 20]] and data.image_path(0) == tmp_path / "a.png"


@pytest.mark.parametrize("text", [VOC, CVAT], ids=["voc", "cvat"])
def test_space_before_the_declaration_costs_nothing(tmp_path, text):
    (tmp_path / "a.xml").write_text(f'\n <?xml version="1.0"?>{text}', encoding="utf-8")
    assert len(boxel.data.read(tmp_path).ids) == 1


@pytest.mark.parametrize("text", [VOC, CVAT], ids=["voc", "cvat"])
def test_text_of_an_encoding_that_is_not_declared_is_refused_by_its_cause(tmp_path, text):
    (tmp_path / "a.xml").write_bytes(text.replace("NAME", "熊猫").encode("gbk"))
    with pytest.raises(BoxelError, match=r"a.xml.*its text is not UTF-8, and it declares no other"):
        boxel.data.read(tmp_path)

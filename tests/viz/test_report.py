"""The page on a labeled set: its metrics, what hostile names do to it, and that it needs nothing beside it."""

import json
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import date
from hashlib import sha256
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

import boxel
from boxel.data import Category, Issue
from boxel.utils.errors import BoxelError
from boxel.viz.report import pictures, write_report

SMALL, MEDIUM = (10, 10, 20, 20), (40, 20, 72, 52)
VOID = {"meta", "img", "rect", "line", "input"}


class Page(HTMLParser):
    """What a browser would make of an HTML file: all text, elements with their attributes, and texts by element."""

    def __init__(self):
        super().__init__()
        self.words, self.code = [], {"style": [], "script": []}
        self.elements, self.open = [], []
        self.texts = {"figure": [], "tr": [], "dt": [], "dd": [], "section": [], "text": []}

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag in self.texts:
            self.texts[tag].append([])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        data = data.replace("\N{NO-BREAK SPACE}", " ")
        for kind in {"style", "script"} & set(self.open):
            self.code[kind].append(data)
            return
        self.words += data.split()
        for tag in set(self.open) & set(self.texts):
            if data.strip():
                self.texts[tag][-1].append(data.strip())

    @property
    def said(self):
        return " ".join(self.words)

    def of(self, tag):
        """The attributes of each element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def report(tmp_path):
    """A function of a set and options; it writes the page and takes it apart."""

    def write(data, **options):
        write_report(data, tmp_path / "report.html", **options)
        page = Page()
        page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
        page.close()
        assert not page.open
        return page

    return write


def test_numbers_of_a_dataset_by_hand(hand_made, report):
    page = report(hand_made)
    assert "Masks from boxes: masks.json Masks by cut (2), no source given (1), net (1)." in page.said
    names, metrics = ([text for (text,) in page.texts[tag]] for tag in ("dt", "dd"))
    assert dict(zip(names, metrics, strict=True)) == {
        "images": "2",
        "boxes": "6",
        "masks": "4",
        "boxes without a mask": "2",
        "masks not trusted": "1",
        "mean quality": "0.65",
    }
    assert "3 of 4 masks have one." in page.said
    rows = page.texts["tr"]
    for row in (
        ["at least 0.5", "2", "0.667"],
        ["at least 0.75", "2", "0.667"],
        ["at least 0.9", "1", "0.333"],
        ["small", "2", "0.500", "1.000", "0.30"],
        ["medium", "2", "0.000", "0.000", "0.82"],
        ["large", "2", "0.500", "0.000", "\N{EN DASH}"],
        ["net", "1", "0.000", "0.000", "0.75"],
        ["1.png", "2 of 3", "104 (dog), 105 (bird)"],
    ):
        assert row in rows
    first = [row[0] for row in rows]
    assert first.index("bird") < first.index("cat") < first.index("dog")  # the worst first


def test_the_histogram_shows_counts_mean_and_median(hand_made, report):
    page = report(hand_made)
    (svg,) = page.of("svg")
    assert svg["aria-label"] == "Histogram of the quality of 3 masks: mean 0.65, median 0.75"
    heights = [float(bar["height"]) for bar in page.of("rect")]
    # 0.3, 0.75 and 0.9, each in the tenth that begins at it or before it.
    assert [k for k, height in enumerate(heights) if height] == [3, 7, 9]
    counts = [
        text
        for text, place in zip(page.texts["text"], page.of("text"), strict=True)
        if place.get("class") == "count"
    ]
    assert counts == [["1"]] * 3
    # A line across the bars at the mean and one at the median, of an axis from 12 to 468; and their keys.
    lines = {line["class"]: float(line["x1"]) for line in page.of("line") if line["x1"] == line["x2"]}
    assert lines == {
        "mean": pytest.approx(12 + 0.65 * 456, abs=0.1),
        "median": pytest.approx(12 + 0.75 * 456),
    }


def test_the_bars_are_as_high_as_their_counts(make_set, report):
    page = report(make_set([(0, 0, SMALL, q, "a", True) for q in (0, 0.05, 0.1, 0.95, 0.99, 1, 1)]))
    heights = [float(bar["height"]) for bar in page.of("rect")]
    assert np.array(heights) / heights[9] * 4 == pytest.approx([2, 1, *[0] * 7, 4], abs=0.01)


def test_worst_and_best_masks_name_their_files(make_set, report):
    qualities = [0.5, 0.1, 0.9, 0.2, 0.8, float("nan")]
    data = make_set([(k % 2, k % 3, SMALL, q, "a", q != 0.1) for k, q in enumerate(qualities)])
    page = report(data, count=2)
    assert page.texts["figure"] == [
        ["dog", "0.10", "1.png", "annotation 101", "not trusted"],
        ["cat", "0.20", "1.png", "annotation 103"],
        ["bird", "0.90", "0.png", "annotation 102"],
        ["dog", "0.80", "0.png", "annotation 104"],
    ]
    assert [image["alt"] for image in page.of("img")] == [
        f"mask of {it}" for it in ("dog", "cat", "bird", "dog")
    ]
    assert "Worst masks dog 0.10" in page.said
    assert "Best masks bird 0.90" in page.said


@pytest.mark.slow
@pytest.mark.parametrize(("masks", "worst", "best"), [(0, 0, 0), (1, 1, 0), (2, 1, 1), (3, 2, 1), (9, 4, 4)])
def test_no_mask_is_shown_twice(make_set, report, masks, worst, best):
    page = report(make_set([(0, 0, SMALL, k / 10, "a", True) for k in range(masks)]), count=4)
    shown = [figure[3] for figure in page.texts["figure"]]
    assert shown == [
        f"annotation {100 + k}" for k in [*range(worst), *range(masks - 1, masks - 1 - best, -1)]
    ]
    assert ("Best masks" in page.said) == bool(best)


def test_without_any_quality_there_is_no_histogram(hand_made, report):
    page = report(replace(hand_made, quality=np.full(7, np.nan, dtype=np.float32)), count=3)
    assert "No mask has an estimate of its quality, so there is no histogram and no ranking." in page.said
    assert not page.of("svg")
    assert "mean quality" not in [text for (text,) in page.texts["dt"]]
    assert "Worst masks" not in page.said and "Some masks" in page.said
    assert [figure[2] for figure in page.texts["figure"]] == [
        "annotation 100",
        "annotation 101",
        "annotation 103",
    ]


def test_a_dataset_without_boxes_has_a_report(make_set, report):
    page = report(make_set([]))
    assert "There are no masks." in page.said
    assert not page.texts["figure"]
    assert "None: each image was labeled, and each box has a mask." in page.said


def test_issues_changes_and_settings_are_listed(hand_made, report):
    data = replace(hand_made, issues=[Issue("annotation", "its bbox is not four numbers.")])
    page = report(
        data,
        failures=["photos/7.jpg: the image is cut short."],
        changed=["a.jpg", "b.jpg"],
        settings={"teachers": ["cut", "net"], "drop": 0.8, "flip": None, "crf": False},
        summary="4 of 6 boxes got a mask",
        command="boxel label '<b>.json'",
    )
    assert "4 of 6 boxes got a mask." in page.said
    assert f"{date.today()}, boxel {boxel.__version__}: boxel label '<b>.json'" in page.said
    assert "Images that could not be labeled: 1 photos/7.jpg: the image is cut short." in page.said
    assert "Boxes without a mask: 2" in page.said
    assert "Entries that could not be read: 1 its bbox is not four numbers." in page.said
    assert "Labeled again a.jpg b.jpg Settings" in page.said
    assert ["images not labeled"] in page.texts["dt"]
    for row in (["teachers", "cut, net"], ["drop", "0.8"], ["flip", "default"], ["crf", "no"]):
        assert row in page.texts["tr"]


def test_empty_sections_are_left_out(make_set, report):
    page = report(make_set([(0, 0, SMALL, 0.5, "a", True)]))
    assert [link["href"] for link in page.of("a")] == [
        "#quality",
        "#groups",
        "#worst-masks",
        "#all-boxes",
        "#issues",
    ]
    assert [section["id"] for section in page.of("section")] == [
        "quality",
        "groups",
        "worst-masks",
        "all-boxes",
        "issues",
    ]


HOSTILE = (
    "\"'><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>&amp;$title{0}%s</style>"
)


def test_hostile_names_are_only_text(hand_made, report):
    plain = report(hand_made, failures=["a"], changed=["b"], settings={"c": "d"})
    data = replace(
        hand_made,
        file=f"/folder/{HOSTILE.replace('/', '')}",
        paths=[HOSTILE, f"{HOSTILE}2"],
        ids=[HOSTILE] * 7,
        categories=tuple(Category(k, f"{HOSTILE}{k}") for k in range(3)),
        source=np.array([HOSTILE] * 7, dtype=object),
    )
    page = report(data, failures=[HOSTILE], changed=[HOSTILE], settings={HOSTILE: HOSTILE, "list": [HOSTILE]})
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in plain.elements} - {"img"}
    known = {name for _, attributes in plain.elements for name in attributes}
    assert {name for _, attributes in page.elements for name in attributes} <= known
    # A card without its image, a group, an issue and a setting show the names as they are.
    (_, category, quality, file, annotation, trust) = page.texts["figure"][0]
    assert (category, quality, trust) == (f"{HOSTILE}0", "0.30", "not trusted")
    assert (file, annotation) == (HOSTILE, f"annotation {HOSTILE}")
    assert f"{HOSTILE}1" in [row[0] for row in page.texts["tr"]]
    assert page.said.count(f"labeled: 1 {HOSTILE}") == page.said.count(f"Labeled again {HOSTILE}") == 1
    assert [HOSTILE, HOSTILE] in page.texts["tr"]


def test_an_odd_file_name_can_be_written(hand_made, report):
    page = report(replace(hand_made, paths=["caf\udce9.png", "\x00.png"]))
    assert "caf\\udce9.png" in page.said


def test_nothing_is_fetched_and_nothing_runs(hand_made, report):
    page = report(hand_made, failures=["http://example.org/1.jpg: can't be read"])
    references = [
        attributes[name]
        for _, attributes in page.elements
        for name in ("src", "href", "srcset", "data", "action", "xlink:href", "style")
        if name in attributes
    ]
    assert references
    assert all(
        re.fullmatch(r"#[a-z-]+|data:image/webp;base64,[\w+/=]+|width:[\d.]+%", it) for it in references
    )
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in page.elements}
    assert not re.search(r"url\(|@import|@font-face", "".join(page.code["style"]))
    # One script is run, which the policy knows by its digest; the other is the list of boxes.
    assert page.of("script") == [{"type": "application/json", "id": "rows"}, {}]
    rows, script = page.code["script"]
    assert not re.search(r"fetch|XMLHttp|import\(|innerHTML|eval", script)
    assert [row[1] for row in json.loads(rows)["rows"]] == [104, 105, 100, 103, 101, 102]
    digest = b64encode(sha256(script.encode()).digest()).decode()
    (policy,) = (
        meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def test_pictures_are_in_the_page(hand_made, report, tmp_path):
    page = report(hand_made)
    sources = [image["src"].split(",")[1] for image in page.of("img")]
    assert len(sources) == 3
    (tmp_path / "one.webp").write_bytes(b64decode(sources[0]))
    with Image.open(tmp_path / "one.webp") as image:
        assert image.format == "WEBP" and max(image.size) == pictures.SIDE


def test_an_unreadable_image_costs_its_own_picture(hand_made, report):
    hand_made.image_path(1).write_bytes(b"")
    page = report(hand_made)
    assert len(page.texts["figure"]) == 3 and len(page.of("img")) == 2
    (lost,) = (figure for figure in page.texts["figure"] if "zero bytes" in figure[0])
    assert lost[1:] == ["dog", "0.75", "1.png", "annotation 103"]


def test_only_the_images_shown_are_read(make_set, report, monkeypatch):
    data = make_set([(k, 0, SMALL, k / 10, "a", True) for k in range(8)], images=8)
    read = []
    plain = pictures.read_image
    monkeypatch.setattr(pictures, "read_image", lambda path: read.append(path.name) or plain(path))
    monkeypatch.setattr("boxel.viz.report.page._MAX_THUMBS", 1)
    page = report(data, count=1)
    assert sorted(read) == ["0.png", "1.png", "7.png"]
    assert "8 boxes, the worst first; 3 of them have a picture." in page.said


@pytest.mark.slow
def test_the_page_does_not_grow_with_the_dataset(make_set, report, tmp_path, monkeypatch):
    """Ten times as many boxes, images, categories, teachers and issues make digits longer, and nothing more."""

    def size(count):
        data = make_set([(0, 0, MEDIUM, 0.5, "a", True)], images=1)
        n = 2 * count
        index = np.arange(n) // 2
        many = replace(
            data,
            image_ids=[*range(count)],
            paths=["0.png"] * count,
            widths=np.repeat(data.widths, count),
            heights=np.repeat(data.heights, count),
            label_maps=[None] * count,
            categories=tuple(Category(k, f"{k:09d}{'x' * 5000}") for k in range(count)),
            ids=[*range(n)],
            image_index=index.astype(np.int32),
            labels=index.astype(np.int32),
            boxes=np.repeat(data.boxes, n, axis=0),
            iscrowd=np.zeros(n, dtype=bool),
            segmentations=np.array([data.segmentations[0], None] * count, dtype=object),
            quality=np.full(n, 0.5, dtype=np.float32),
            source=np.array([f"{k:09d}" for k in range(n)], dtype=object),
            trusted=np.ones(n, dtype=bool),
            areas=np.full(n, np.nan),
            extras=np.full(n, None, dtype=object),
        )
        report(
            many,
            count=2,
            failures=["b" * 5000] * count,
            changed=["c" * 5000] * count,
            settings={"s": "s" * 9999},
        )
        return (tmp_path / "report.html").stat().st_size

    monkeypatch.setattr("boxel.viz.report.page._MAX_LISTED", 200)
    small, large = size(150), size(1500)
    assert large < small * 1.03
    assert large < 600_000


def test_the_same_dataset_gives_the_same_page(hand_made, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(hand_made, tmp_path / name, settings={"drop": 0.5})
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_the_folder_of_the_page_is_created(hand_made, tmp_path):
    write_report(hand_made, tmp_path / "new" / "folder" / "report.html")
    assert (tmp_path / "new" / "folder" / "report.html").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(BoxelError, match=r"report\.html: cannot be written \(.*\); check the folder"):
        write_report(hand_made, tmp_path / "file" / "report.html")

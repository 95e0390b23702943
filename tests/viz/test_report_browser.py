"""The reports in a real browser: what they look like when they are small, sorted, enlarged, printed or large."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxel.data import Category, check, collect_statistics, example_scenes
from boxel.data.issues import Issue
from boxel.data.label_maps import make_label_map
from boxel.evaluation import compare, evaluate, to_results
from boxel.viz import save_image, write_check_report, write_report
from boxel.viz.report import write_training_report

pytestmark = pytest.mark.slow

HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>"
KINDS = ("dataset", "masks", "detections", "given boxes", "pixels", "training", "comparison")


def hostile(data, folder):
    """A dataset with a class whose name is HTML, and a quality for each object."""
    categories = (Category(1, HOSTILE), *data.categories[1:])
    quality = np.linspace(0.2, 0.9, len(data.labels)).astype(np.float32)
    return replace(data, categories=categories, quality=quality, file=str(folder / "masks.json"))


def write_run(folder):
    folder.mkdir()
    (folder / "config.yaml").write_text(f"method: boxinst\nname: '{HOSTILE}'\noptim:\n  lr: 0.1\n")
    (folder / "metrics.csv").write_text(
        "step,loss/total,loss/mil,val/mask_AP,lr\n0,2,1,,0.1\n9,1,0.5,0.3,0.05\n"
    )
    save_image(np.zeros((40, 60, 3), np.uint8), folder / "samples" / "step_000010.jpg")
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A page of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    data = hostile(example_scenes(3), folder)
    results = [{**row, "score": 0.9 - 0.01 * k} for k, row in enumerate(to_results(data))]
    for name, rows in (("a", results), ("b", results[2:])):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    for image in range(3):
        labels = make_label_map(data, image)
        save_image(np.where(labels == labels.max(), 0, labels), folder / "maps" / f"{image:06d}.png")
    pages = {kind: folder / f"{kind}.html" for kind in KINDS}
    issues = [*check(data), Issue("box-tiny", HOSTILE, image_id=data.image_ids[0], annotation_id=data.ids[0])]
    write_check_report(collect_statistics(data), issues, pages["dataset"], HOSTILE, data)
    write_report(data, pages["masks"], settings={HOSTILE: 1}, failures=[HOSTILE], count=2)
    evaluate(results[1:], data, boundary=False, report=str(pages["detections"]))
    evaluate(data, data, baselines=["box"], report=str(pages["given boxes"]))
    evaluate(folder / "maps", data, report=str(pages["pixels"]))
    write_training_report(write_run(folder / "run"), pages["training"])
    compare([folder / "a.json", folder / "b.json"], data, report=pages["comparison"])
    return pages


@contextmanager
def opened(browser, path: Path, width=1100):
    """A tab with a file; whatever it would fetch, and errors and refusals in it, fail the test."""
    context = browser.new_context(viewport={"width": width, "height": 800})
    tab, errors = context.new_page(), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    tab.on("dialog", lambda dialog: errors.append(dialog.message))
    tab.on("request", lambda it: None if it.url.startswith(("file:", "data:")) else errors.append(it.url))
    tab.goto(path.resolve().as_uri())
    yield tab
    context.close()
    assert errors == []


@pytest.mark.parametrize("width", [1100, 400])
@pytest.mark.parametrize("kind", KINDS)
def test_pages_fit_fetch_nothing_and_are_accessible(browser, pages, kind, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with opened(browser, pages[kind], width) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") == width
        # Only what boxel made itself is an element; the class with the name of HTML is text.
        assert (
            tab.locator("script").count() == 1 + (kind == "masks")
            and tab.locator("img[src*=evil]").count() == 0
        )
        assert "<script>alert(1)</script>" in tab.inner_text("body")
        found = axe.Axe().run(tab).response["violations"]
        assert [row["id"] for row in found if row["impact"] in ("serious", "critical")] == []


@pytest.mark.parametrize("kind", KINDS)
def test_pages_print_all_of_their_tables(browser, pages, kind):
    with opened(browser, pages[kind]) as tab:
        tab.emulate_media(media="print")
        assert not tab.locator("nav").is_visible()
        hidden = "all => all.filter((one) => one.scrollHeight > one.clientHeight + 1).length"
        assert tab.eval_on_selector_all(".scroll", hidden) == 0
        assert tab.pdf(format="A4").startswith(b"%PDF")


def column(tab, number):
    return tab.locator(f"#every tbody td:nth-child({number})").all_inner_texts()


def test_all_boxes_are_sorted_and_filtered(browser, pages):
    with opened(browser, pages["masks"]) as tab:
        qualities = [float(text) for text in column(tab, 5)]
        assert qualities[0] == 0.2 and qualities == sorted(qualities)
        head = tab.locator("#every th", has_text="quality")
        head.locator("button").click()
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert [float(text) for text in column(tab, 5)] == sorted(qualities, reverse=True)
        tab.locator("#every th", has_text="id").locator("button").click()
        ids = [int(text) for text in column(tab, 3)]
        assert ids == sorted(ids) and len(ids) == len(qualities)
        tab.fill("#every input", "alert(1)")
        assert set(column(tab, 4)) == {HOSTILE}
        tab.fill("#every input", "no such class")
        assert tab.inner_text("#every output") == "none"


def test_tables_are_sorted_by_a_click(browser, pages):
    with opened(browser, pages["detections"]) as tab:
        table = tab.locator("#classes table")
        before = table.locator("td:nth-child(2)").all_inner_texts()
        table.locator("th", has_text="objects").locator("button").click()
        after = table.locator("td:nth-child(2)").all_inner_texts()
        assert after == sorted(before, key=int) and len(after) > 1


def test_pictures_are_enlarged_and_turned_by_keys(browser, pages):
    with opened(browser, pages["detections"]) as tab:
        button = tab.locator("#worst-images button.zoom").first
        small = button.locator("img").first.bounding_box()
        button.click()
        assert tab.locator("#zoom img").count() == 2  # truth and prediction stay together
        large = tab.locator("#zoom img").first.bounding_box()
        assert large["width"] > 1.3 * small["width"]
        assert "image" in tab.inner_text("#zoom p")
        tab.keyboard.press("Escape")
        assert not tab.locator("#zoom").is_visible()
    with opened(browser, pages["masks"]) as tab:
        tab.locator("#worst-masks button.zoom").first.click()
        first = tab.inner_text("#zoom p")
        tab.keyboard.press("ArrowRight")
        assert tab.inner_text("#zoom p") != first
        tab.keyboard.press("ArrowLeft")
        assert tab.inner_text("#zoom p") == first


def test_20000_boxes_open_and_sort_at_once(browser, tmp_path):
    data = hostile(example_scenes(1), tmp_path)
    rows = np.resize(np.arange(len(data.labels)), 20_000)
    many = data.select_instances(rows)
    many = replace(many, ids=list(range(20_000)), quality=np.linspace(0, 1, 20_000).astype(np.float32))
    write_report(many, tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 4_000_000
    with opened(browser, tmp_path / "page.html") as tab:
        assert "20,000 boxes, the worst first; 198 of them have a picture." in tab.inner_text("#all-boxes")
        assert tab.inner_text("#every output") == "1 to 100 of 20,000"
        taken = tab.evaluate(
            """() => { const start = performance.now();
            document.querySelectorAll("#every th button")[1].click(); return performance.now() - start; }"""
        )
        assert column(tab, 3)[:3] == ["0", "1", "2"] and taken < 2000
        tab.locator("#every .on").click()
        assert column(tab, 3)[0] == "100"

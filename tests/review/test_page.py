"""The review page in a real browser: look, decide, correct, undo, and what survives."""

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from boxel.cli import main
from boxel.data import Annotations, read, write
from boxel.masks.rle import decode
from boxel.review import DecisionStore, Review, decisions_path
from tests.review.conftest import Server, new_tab

pytestmark = pytest.mark.slow


def get(page: Page, path: str) -> Any:
    """What the server answers to the page."""
    return page.evaluate("path => fetch(path).then((answer) => answer.json())", path)


def saved(page: Page) -> None:
    """Wait until the page has sent all and shown the answer."""
    page.wait_for_function("() => document.body.dataset.busy !== 'true'")


def open_object(page: Page, row: int) -> None:
    page.evaluate("row => document.querySelector(`#grid [data-row='${row}']`).click()", row)
    expect(page.locator("#object-view")).to_be_visible()
    saved(page)


def drag(page: Page, start: tuple[float, float], end: tuple[float, float], button: str = "left") -> None:
    """Drag on the canvas between two places in pixels of the image."""
    a, b = (to_screen(page, place) for place in (start, end))
    page.mouse.move(*a)
    page.mouse.down(button=button)  # type: ignore[arg-type]
    page.mouse.move((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
    page.mouse.move(*b)
    page.mouse.up(button=button)  # type: ignore[arg-type]
    saved(page)


def to_screen(page: Page, place: tuple[float, float]) -> tuple[float, float]:
    x, y = page.evaluate("place => window.boxelView.toScreen(...place)", list(place))
    corner = page.locator("#canvas").bounding_box()
    assert corner is not None
    return corner["x"] + x, corner["y"] + y


def load_mask(page: Page, row: int, masks: Path, scenes: Annotations) -> np.ndarray:
    """The mask of an object as a session that starts now would find it."""
    review = Review(read(masks, scenes.root), DecisionStore(decisions_path(masks)))
    rle = review.rle(row)
    review.store.close()
    return decode(rle).astype(bool) if rle else np.zeros((96, 128), bool)


def test_the_grid_shows_the_worst_first(page: Page, scenes: Annotations) -> None:
    rows = page.eval_on_selector_all("#grid button", "cells => cells.map((cell) => Number(cell.dataset.row))")
    assert rows == np.argsort(scenes.quality).tolist()
    page.wait_for_function("() => [...document.images].slice(0, 4).every((one) => one.naturalWidth > 50)")
    assert "in doubt and open" in page.inner_text("#progress")


def test_filters_choose_and_a_reload_keeps_them(page: Page, scenes: Annotations) -> None:
    page.select_option("[name=order]", "best")
    page.select_option("[name=category]", scenes.categories[scenes.labels[0]].name)
    page.fill("[name=max_quality]", "0.8")
    page.press("[name=max_quality]", "Enter")
    wanted = np.flatnonzero((scenes.labels == scenes.labels[0]) & (scenes.quality <= 0.8))[::-1].tolist()
    for _ in range(2):
        expect(page.locator("#grid button")).to_have_count(len(wanted))
        rows = page.eval_on_selector_all(
            "#grid button", "cells => cells.map((cell) => Number(cell.dataset.row))"
        )
        assert rows == wanted
        page.reload()
        page.wait_for_selector("#grid button")


def test_by_keyboard_alone(page: Page, scenes: Annotations) -> None:
    page.keyboard.press("ArrowRight")  # to the first object
    page.keyboard.press("Enter")
    expect(page.locator("#object-view")).to_be_visible()
    for key in ("a", "r", "i", "Delete"):
        page.keyboard.press(key)
        saved(page)
    page.keyboard.press("Escape")
    expect(page.locator("#grid-view")).to_be_visible()
    order = np.argsort(scenes.quality).tolist()
    states = [get(page, f"/api/objects/{row}")["state"] for row in order[:5]]
    assert states == ["accepted", "rejected", "ignored", "deleted", "open"]
    assert "1 accepted · 1 rejected · 1 ignored · 1 deleted" in page.inner_text("#progress")


def test_a_state_is_shown_in_the_grid_and_taken_back(page: Page) -> None:
    page.focus("#grid [data-row='2']")
    page.keyboard.press("r")
    expect(page.locator("#grid [data-row='2'] .note")).to_contain_text("rejected")
    page.keyboard.press("z")
    expect(page.locator("#grid [data-row='2'] .note")).not_to_contain_text("rejected")
    page.keyboard.press("y")
    expect(page.locator("#grid [data-row='2'] .note")).to_contain_text("rejected")


def test_a_moved_box_gets_a_new_mask(page: Page, scenes: Annotations) -> None:
    open_object(page, 0)
    x0, y0, x1, y1 = scenes.boxes[0].tolist()
    page.keyboard.press("b")
    drag(page, (x0, y0), (x0 - 6, y0 + 5))
    found = get(page, "/api/objects/0")
    assert found["maker"] == "boxcaseg" and found["state"] == "open"
    np.testing.assert_allclose(found["box"], [x0 - 6, y0 + 5, x1, y1], atol=1)


def test_the_brush_adds_and_removes(page: Page, masks: Path, scenes: Annotations) -> None:
    before = decode(scenes.rle(0)).astype(bool)
    open_object(page, 0)
    page.keyboard.press("d")
    x0, y0, *_ = scenes.boxes[0].tolist()
    drag(page, (x0 + 1, y0 + 1), (x0 + 6, y0 + 1))
    added = load_mask(page, 0, masks, scenes)
    assert (added & ~before).any() and not (before & ~added).any()
    drag(page, (x0 + 1, y0 + 1), (x0 + 6, y0 + 1), button="right")
    removed = load_mask(page, 0, masks, scenes)
    assert not removed[int(y0) + 1, int(x0) + 1 : int(x0) + 6].any()
    assert get(page, "/api/objects/0")["state"] == "accepted"


def test_a_vertex_is_moved_and_the_mask_follows(page: Page, masks: Path, scenes: Annotations) -> None:
    before = decode(scenes.rle(0)).astype(bool)
    open_object(page, 0)
    page.keyboard.press("p")
    saved(page)
    (ring, *_) = get(page, "/api/objects/0/vertices")
    top = min(ring, key=lambda point: point[1])
    drag(page, tuple(top), (top[0], top[1] - 8))
    after = load_mask(page, 0, masks, scenes)
    assert (after & ~before).sum() > 5 and not (before & ~after).any()
    page.keyboard.press("z")
    saved(page)
    np.testing.assert_array_equal(load_mask(page, 0, masks, scenes), before)


def test_a_new_object_gets_a_mask(page: Page, scenes: Annotations) -> None:
    open_object(page, 0)
    page.keyboard.press("n")
    x0, y0, x1, y1 = scenes.boxes[0].tolist()
    drag(page, (x0 + 1, y0 + 1), (x1 - 1, y1 - 1))
    found = get(page, f"/api/objects/{len(scenes.ids)}")
    assert found["mask"] and found["image"] == 0
    assert get(page, "/api/dataset")["objects"] == len(scenes.ids) + 1
    page.keyboard.press("z")
    saved(page)
    assert get(page, f"/api/objects/{len(scenes.ids)}")["state"] == "deleted"
    page.keyboard.press("y")
    saved(page)
    assert get(page, f"/api/objects/{len(scenes.ids)}")["state"] == "open"


def test_the_class_is_changed_by_a_number(page: Page, scenes: Annotations) -> None:
    open_object(page, 0)
    number = (int(scenes.labels[0]) + 1) % len(scenes.categories)
    page.keyboard.press(str(number + 1))
    saved(page)
    assert get(page, "/api/objects/0")["category"] == number
    assert page.locator("#category").input_value() == scenes.categories[number].name


def test_masks_are_hidden_while_a_key_is_held(page: Page) -> None:
    open_object(page, 0)
    page.wait_for_timeout(500)
    canvas = page.locator("#canvas")
    drawn = canvas.screenshot()
    page.keyboard.down("h")
    page.wait_for_timeout(100)
    hidden = canvas.screenshot()
    page.keyboard.up("h")
    page.wait_for_timeout(100)
    assert drawn != hidden and canvas.screenshot() == drawn


def test_undo_works_after_a_reload(page: Page) -> None:
    open_object(page, 1)
    page.keyboard.press("r")
    saved(page)
    page.reload()
    page.wait_for_selector("#grid button", state="attached")
    saved(page)
    page.keyboard.press("z")
    saved(page)
    assert get(page, "/api/objects/1")["state"] == "open"


def test_an_object_that_was_fetched_ahead_shows_what_was_undone_since(page: Page) -> None:
    page.focus("#grid [data-row='2']")
    page.keyboard.press("r")
    saved(page)
    open_object(page, 0)  # fetches 1 and 2
    for key in ("z", "ArrowLeft", "ArrowRight"):  # undo shows 2
        page.keyboard.press(key)
        saved(page)
    expect(page.locator("#facts")).to_contain_text("open")
    page.keyboard.press("a")
    saved(page)
    assert get(page, "/api/objects/2")["state"] == "accepted"


def test_a_crash_of_the_server_loses_nothing_and_is_reported(
    browser: Browser, masks: Path, scenes: Annotations
) -> None:
    images = ("--images", str(scenes.root))
    with Server(masks, *images) as server, new_tab(browser, server.link) as tab:
        open_object(tab, 0)
        tab.keyboard.press("a")
        saved(tab)
        server.kill()
        tab.keyboard.press("r")
        expect(tab.locator("#message")).to_contain_text("Not saved: the server does not answer.")
    with Server(masks, *images) as server, new_tab(browser, server.link) as tab:
        assert get(tab, "/api/objects/0")["state"] == "accepted"
        assert get(tab, "/api/progress")["rejected"] == 0


def test_two_tabs_do_not_overwrite_each_other(browser: Browser, server: Server) -> None:
    with new_tab(browser, server.link) as one, new_tab(browser, server.link) as other:
        for tab in (one, other):
            open_object(tab, 0)
        one.keyboard.press("a")
        saved(one)
        other.keyboard.press("r")
        expect(other.locator("#message")).to_contain_text("was changed meanwhile")
        assert get(other, "/api/objects/0")["state"] == "accepted"
        expect(other.locator("[data-action=accepted]")).to_have_attribute("aria-pressed", "true")


def test_a_hundred_thousand_objects(browser: Browser, scenes: Annotations, tmp_path: Path) -> None:
    one = scenes.select_instances(np.zeros(100_000, dtype=int))
    quality = np.random.default_rng(0).random(100_000).astype(np.float32)
    many = replace(one, ids=list(range(1, 100_001)), quality=quality)
    write(many, tmp_path / "masks.json")
    running = Server(tmp_path / "masks.json", "--images", str(scenes.root))
    with running as server, new_tab(browser, server.link) as tab:
        assert "100,000" in tab.inner_text("#page-state")
        first = int(np.argmin(quality))
        assert tab.get_attribute("#grid button", "data-row") == str(first)
        tab.click("#page-on")
        expect(tab.locator("#page-state")).to_have_text("61 to 120 of 100,000")
        open_object(tab, int(np.argsort(quality, kind="stable")[60]))
        tab.keyboard.press("a")
        saved(tab)
        assert get(tab, "/api/progress")["accepted"] == 1


@pytest.mark.parametrize("width", [1100, 400])
def test_no_serious_accessibility_issue(browser: Browser, server: Server, width: int) -> None:
    axe = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    with new_tab(browser, server.link, width=width) as tab:
        tab.evaluate(axe)
        for view in ("grid", "object", "help"):
            if view == "object":
                open_object(tab, 0)
            elif view == "help":
                tab.keyboard.press("?")
            found = tab.evaluate("() => axe.run()")["violations"]
            serious = [one["id"] for one in found if one["impact"] in ("serious", "critical")]
            assert not serious, (view, serious)


def test_nothing_is_wider_than_a_phone(browser: Browser, server: Server) -> None:
    with new_tab(browser, server.link, width=400) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        open_object(tab, 0)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_page_asks_no_other_server(browser: Browser, server: Server) -> None:
    context = browser.new_context()
    asked: list[str] = []
    tab = context.new_page()
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(server.link)
    tab.wait_for_selector("#grid button")
    open_object(tab, 0)
    tab.wait_for_timeout(300)
    context.close()
    assert asked and all(url.startswith((f"http://127.0.0.1:{server.port}/", "data:")) for url in asked)


def test_images_alone_are_labeled_from_nothing(browser: Browser, scenes: Annotations, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    with (
        Server(folder, "--classes", "cat,dog") as server,
        new_tab(browser, server.link, first="#drop") as tab,
    ):
        tab.set_input_files("#files", [scenes.image_path(0), scenes.image_path(1)])
        expect(tab.locator("#grid button")).to_have_count(2)
        tab.click("#grid button >> nth=1")
        expect(tab.locator("#object-view")).to_be_visible()
        saved(tab)
        tab.keyboard.press("2")
        for box in scenes.boxes[scenes.instances_in(1)].tolist():
            drag(tab, (box[0], box[1]), (box[2], box[3]))
        tab.keyboard.press("a")
        saved(tab)
        found = get(tab, "/api/objects?rows=" + ",".join(map(str, range(len(scenes.instances_in(1))))))
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "000001.png"]
    out = tmp_path / "reviewed.json"
    assert main(["review", str(folder), "--classes", "cat,dog", "--export", str(out)]) == 0
    data = read(out, folder)
    assert [one["state"] for one in found].count("accepted") == 1
    assert data.has_mask.all() and len(data.ids) == len(found)
    assert {data.categories[label].name for label in data.labels} == {"dog"}
    np.testing.assert_allclose(data.boxes, scenes.boxes[scenes.instances_in(1)], atol=1)


def test_a_click_adds_what_is_missing(page: Page, masks: Path, scenes: Annotations) -> None:
    before = decode(scenes.rle(0)).astype(bool)
    open_object(page, 0)
    page.keyboard.press("c")
    x0, y0, *_ = scenes.boxes[0].tolist()
    x, y = to_screen(page, (x0 + 1.5, y0 + 1.5))
    page.mouse.click(x, y)
    saved(page)
    added = load_mask(page, 0, masks, scenes)
    assert added[int(y0) + 1, int(x0) + 1] and not (before & ~added).any()
    page.mouse.click(x, y, button="right")
    saved(page)
    assert not load_mask(page, 0, masks, scenes)[int(y0) + 1, int(x0) + 1]


def test_the_next_twenty_come_with_reasons(page: Page) -> None:
    page.click("#show-next")
    saved(page)
    expect(page.locator("#message")).to_have_text("These are worth the most.")
    notes = page.eval_on_selector_all("#grid .note", "notes => notes.map((note) => note.textContent)")
    assert len(notes) > 5 and all(
        any(word in note for word in ("quality", "doubt", "sample")) for note in notes
    )


def test_the_random_order_states_what_it_guarantees(page: Page) -> None:
    page.select_option("[name=order]", "random")
    saved(page)
    expect(page.locator("#guarantee")).to_have_text(
        "A guarantee of an IoU of 0.75 needs decisions about 29 more masks in the random order."
    )
    page.keyboard.press("ArrowRight")
    for _ in range(6):
        page.keyboard.press("a")
        saved(page)
    expect(page.locator("#guarantee")).to_contain_text(re.compile("about 2[3-8] more masks"))


def test_another_dataset_at_the_same_port_has_its_own_pictures_and_history(
    browser: Browser, scenes: Annotations, tmp_path: Path
) -> None:
    """A browser keeps pictures by their addresses, and a tab what it can undo; both belong to one dataset."""
    context, found = browser.new_context(), []
    tab, port = context.new_page(), 0
    for name, row in (("a", 0), ("b", 1)):
        folder = tmp_path / name
        folder.mkdir()
        write(scenes.select_instances([row]), folder / "masks.json")
        flags = ["--port", str(port)] if port else []
        with Server(folder / "masks.json", "--images", str(scenes.root), *flags) as server:
            port = server.port
            tab.goto(server.link)
            tab.wait_for_selector("#grid img")
            address = tab.get_attribute("#grid img", "src")
            found.append(tab.evaluate("url => fetch(url).then((a) => a.text())", address))
            if name == "b":
                tab.keyboard.press("z")
                expect(tab.locator("#message")).to_have_text("There is nothing left.")
            tab.focus("#grid button")
            tab.keyboard.press("r")
            expect(tab.locator("#grid .note")).to_contain_text("rejected")
    context.close()
    assert found[0] != found[1]

"""How long does a reviewer wait? Times of `boxel review` in Chromium, with 100,000 objects.

    python benchmarks/review_page.py

The images are those of COCO's validation file, 640 pixels wide; their boxes, with masks of the bundled network, are
repeated until there are 100,000 objects.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from _record import Table, arguments
from _runs import read_coco
from playwright.sync_api import Page, sync_playwright

import boxel
from boxel.data import Annotations

OBJECTS = 100_000
REPEATS = 25
NOTE = (
    "Milliseconds from the key or the link until the page shows the answer, median (90th percentile) of 25; the server "
    "and the browser share two cores. A moved box includes the network, a click the cut."
)


def main() -> None:
    """Record a row per action."""
    parser = arguments(__doc__, data=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        masks = Path(folder, "masks.json")
        data = repeat(boxel.label(read_coco(args.data, "val_boxes")))
        boxel.write(data, masks)
        began = time.perf_counter()
        server = subprocess.Popen(
            [sys.executable, "-m", "boxel", "review", str(masks), "--images", str(data.root)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            line = server.stdout.readline()  # type: ignore[union-attr]
            started = 1000 * (time.perf_counter() - began)
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = chromium.new_page(viewport={"width": 1280, "height": 800})
            record(page, re.search(r"http\S+", line)[0], started)  # type: ignore[index]
        finally:
            server.terminate()


def repeat(data: Annotations) -> Annotations:
    """Repeat the objects of a dataset under new ids, with random qualities."""
    rows = np.resize(np.arange(len(data.ids)), OBJECTS)
    quality = np.random.default_rng(0).random(OBJECTS).astype(np.float32)
    return replace(data.select_instances(rows), ids=list(range(1, OBJECTS + 1)), quality=quality)


def record(page: Page, link: str, started: float) -> None:
    """Time what a reviewer does, and write the table."""
    table = Table("review", "page", ["ms"], "action", "The review page with 100,000 objects", NOTE)
    table.add("start of the server until the link is printed", round(started))
    table.add("first screen", measure(page, lambda: page.goto(link), "#grid button", repeats=1))
    table.add("sixty more objects", measure(page, lambda: page.click("#page-on")))
    table.add("another order", measure(page, switch_order(page)))
    page.keyboard.press("ArrowRight")
    table.add("open an object", measure(page, lambda: page.keyboard.press("Enter"), repeats=1))
    table.add("next object", measure(page, lambda: page.keyboard.press("ArrowRight")))
    table.add("accept, and next object", measure(page, lambda: page.keyboard.press("a")))
    page.keyboard.press("b")
    table.add("move the box: a new mask", measure(page, lambda: drag(page, 4)))
    page.keyboard.press("d")
    table.add("a stroke of the brush", measure(page, lambda: drag(page, 8)))
    page.keyboard.press("c")
    table.add("a click", measure(page, lambda: page.mouse.click(480, 400)))
    table.add("undo", measure(page, lambda: page.keyboard.press("z")))
    table.write()


def switch_order(page: Page) -> Callable[[], None]:
    """Return what chooses the best and the worst first in turns."""
    orders = iter(["best", "worst"] * REPEATS)
    return lambda: page.select_option("[name=order]", next(orders)) and None


def drag(page: Page, distance: int) -> None:
    """Drag from the middle of the canvas."""
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(300 + 20 * distance, 300 + 20 * distance)
    page.mouse.up()


def measure(page: Page, act: Callable[[], object], selector: str = "body", repeats: int = REPEATS) -> str:
    """Return the median time until the page is idle after an action, and its 90th percentile."""
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        page.wait_for_selector(selector)
        page.wait_for_function("() => document.body.dataset.busy === 'false'", polling=2)
        spent.append(1000 * (time.perf_counter() - began))
    if repeats == 1:
        return f"{spent[0]:.0f}"
    return f"{statistics.median(spent):.0f} ({statistics.quantiles(spent, n=10)[-1]:.0f})"


if __name__ == "__main__":
    main()

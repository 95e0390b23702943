"""Take the pictures of the review page and of reports in the guides, in Chromium.

python docs/screenshots.py

The photographs are those of scikit-image's wheel (extra `demo`).
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import boxel
from boxel.data.samples import sample_images
from boxel.evaluation import compare
from boxel.viz import write_report

IMAGES = Path(__file__).resolve().parent / "images"
SIZE = {"width": 1120, "height": 640}


def main() -> None:
    """Label the photographs, open the page, and write the pictures."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        data, masks = sample_images(), Path(folder, "masks.json")
        names = [Path(path).name for path in data.paths]
        for path, name in zip(data.paths, names, strict=True):
            shutil.copyfile(path, Path(folder, name))
        truth = replace(data, root=Path(folder), paths=names, file="val_masks.json")
        labeled = boxel.label(truth.without_masks(), out=masks)
        write_report(labeled, Path(folder, "report.html"))
        cut = boxel.label(truth.without_masks(), teacher="grabcut", out=Path(folder, "grabcut.json"))
        assert cut.file, "the comparison names the file"
        compare(
            [masks, Path(folder, "grabcut.json")], truth, images=folder, report=Path(folder, "compare.html")
        )
        server = subprocess.Popen(
            [sys.executable, "-m", "boxel", "review", str(masks)], stdout=subprocess.PIPE, text=True
        )
        try:
            found = re.search(r"http\S+", server.stdout.readline())  # type: ignore[union-attr]
            chromium = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = chromium.new_page(viewport=SIZE)
            page.goto(found[0])  # type: ignore[index]
            take(page, "review.jpg")
            page.click("#grid button >> nth=1")
            page.wait_for_selector("#object-view:not([hidden])")
            page.keyboard.press("p")
            take(page, "review_object.jpg")
            take_report(page, Path(folder, "report.html"), "#all-boxes", "report_boxes.jpg")
            take_report(page, Path(folder, "compare.html"), "#images-that-differ", "report_compare.jpg")
        finally:
            server.terminate()


def take_report(page: Page, file: Path, section: str, name: str) -> None:
    """Write what a report shows from a section on."""
    page.goto(file.as_uri())
    page.evaluate("section => document.querySelector(section).scrollIntoView()", section)
    take(page, name)


def take(page: Page, name: str) -> None:
    """Write what the page shows once all pictures are there."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    shot.save(IMAGES / name, quality=80)


if __name__ == "__main__":
    main()

"""The demo on bundled photographs: check boxes, predict masks, evaluate and draw them; seconds, without PyTorch."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boxel.data import Annotations, read
from boxel.data.checks import check
from boxel.data.images import read_image
from boxel.data.issues import format_issues
from boxel.data.samples import write_sample_images
from boxel.evaluation import evaluate
from boxel.evaluation.boxes import format_masks
from boxel.labeling.api import label_data
from boxel.viz.output import contact_sheet, save_image
from boxel.viz.overlays import overlay

_METRICS = ("mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class", "instances", "min_side")
"""Metrics without those of the quality, since 24 of 33 boxes are coins in one photograph: too few kinds to rank."""


@dataclass(frozen=True)
class DemoResult:
    """What a demo has done.

    Attributes:
        summary: Its metrics, plain JSON.
        text: The same for people, with the files to look at.
    """

    summary: dict[str, Any]
    text: str

    def __str__(self) -> str:
        return self.text


def demo(out: str | os.PathLike[str] = "demo") -> DemoResult:
    """Predict masks for the boxes of bundled photographs, and compare them with outlines drawn by hand.

    Args:
        out: Folder for `photos/`, `photos_masks.json`, `report.html` and `photos.jpg`. Masks that it already has are
            kept.

    Returns:
        By `masks` and `box` (each box filled) the metrics of :func:`~boxel.evaluation.boxes.measure_masks`; `labeled`,
        the number of photographs labeled now, and `seconds`, the time that took with the loading of the network.

    Raises:
        BoxelError: The photographs are not installed, or `out` holds masks of other settings or another network.
    """
    out = Path(out)
    truth = write_sample_images(out / "photos")
    boxes = read(out / "photos" / "boxes.json")
    issues = format_issues(check(boxes))[0]
    start = time.monotonic()
    outcome = label_data(boxes, out=out / "photos_masks.json")
    seconds = round(time.monotonic() - start, 1)
    outcome.write_report(out / "report.html", "boxel demo")
    draw_photos(outcome.data, out / "photos.jpg")
    evaluation = evaluate(out / "photos_masks.json", truth, baselines=["box"])
    metrics = {k: {name: round(row[name], 4) for name in _METRICS} for k, row in evaluation.metrics.items()}
    text = f"""\
{len(boxes)} photographs with {len(boxes.labels)} boxes; check: {issues}
labeled {outcome.labeled} photographs in {seconds} s: {outcome.summary()}

The masks, and the filled boxes, against outlines drawn by hand:
{format_masks(metrics)}

Look at:
  {out / "report.html"}   the masks and their quality, the worst first
  {out / "photos.jpg"}   boxes and masks side by side
  {out / "photos_masks.json"}   the masks, in COCO's format"""
    return DemoResult(metrics | {"labeled": outcome.labeled, "seconds": seconds}, text)


def draw_photos(data: Annotations, path: str | os.PathLike[str]) -> None:
    """Draw each image with its boxes, and beside it with its masks and their quality; two images per row."""
    names = [category.name for category in data.categories]
    cells = []
    for index in range(len(data)):
        image = read_image(data.image_path(index))
        own = data.instances_in(index)
        boxes, masks = data.boxes[own], [data.rle(i) for i in own.tolist()]
        cells.append(overlay(image, boxes, None, data.labels[own], names))
        cells.append(overlay(image, boxes, masks, data.labels[own], names, data.quality[own]))
    save_image(contact_sheet(cells, columns=4, cell=300), path)

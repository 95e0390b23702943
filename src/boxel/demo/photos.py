"""Masks of boxes on a handful of real photos, in seconds: checked, labeled, measured and drawn."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from boxel.data import Annotations, read
from boxel.data.checks import check
from boxel.data.images import read_image
from boxel.data.issues import format_issues
from boxel.data.samples import write_sample_images
from boxel.evaluation import evaluate
from boxel.labeling.api import label_data
from boxel.viz.overlays import contact_sheet, overlay, save_image
from boxel.viz.report import write_report

_FIGURES = ("mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class", "instances")
"""What is told of the masks; most boxes are coins on one photo, of which a ranking by quality says nothing."""


def label_photos(out: str | os.PathLike[str]) -> dict[str, Any]:
    """Check the boxes of the installed photos, make their masks, and measure these on outlines drawn by hand.

    Args:
        out: folder for `photos/`, `photos_masks.json`, `report.html` and `photos.jpg`. Masks already in it are not made
            again.

    Returns:
        By `masks` and `box` (each box filled): the figures of
        :func:`~boxel.evaluation.boxes.mask_iou_metrics` and `instances`, their number. `labeled`, the photos whose
        masks were made now, and `seconds`, what that took with the loading of the network.

    Raises:
        BoxelError: `out` holds masks of other settings or of another network.
    """
    out = Path(out)
    truth = write_sample_images(out / "photos")
    boxes = read(out / "photos" / "boxes.json")
    print(f"{len(boxes)} real photos with {len(boxes.labels)} boxes; check: {format_issues(check(boxes))[0]}")

    began = time.monotonic()
    outcome = label_data(boxes, out=out / "photos_masks.json")
    seconds = round(time.monotonic() - began, 1)
    print(f"labeled {outcome.labeled} photos in {seconds} s: {outcome.summary()}")
    write_report(
        outcome.data,
        out / "report.html",
        bad=outcome.bad,
        changed=outcome.changed,
        settings=outcome.settings,
    )
    draw_photos(outcome.data, out / "photos.jpg")

    evaluation = evaluate(out / "photos_masks.json", truth, baselines=["box"])
    figures = {
        name: {key: round(row[key], 4) for key in _FIGURES} for name, row in evaluation.metrics.items()
    }
    print(f"against outlines drawn by hand, beside the filled box:\n{evaluation.table()}")
    print(f"pictures (boxes, masks with their quality): {out / 'photos.jpg'}   page: {out / 'report.html'}")
    print(f"masks: {out / 'photos_masks.json'}   photos and boxes: {out / 'photos'}")
    return figures | {"labeled": outcome.labeled, "seconds": seconds}


def draw_photos(data: Annotations, path: str | os.PathLike[str]) -> None:
    """Draw each photo with its boxes and beside that with its masks, two photos a row.

    Args:
        data: a set with masks and their quality, which is written at each.
        path: the picture to write.

    Raises:
        BoxelError: a photo can't be read, or the picture can't be written.
    """
    names = [category.name for category in data.categories]
    cells = []
    for index in range(len(data)):
        photo = read_image(data.image_path(index))
        own = data.instances_in(index)
        masks = [data.rle(i) for i in own.tolist()]
        cells.append(overlay(photo, data.boxes[own], None, data.labels[own], names))
        cells.append(overlay(photo, data.boxes[own], masks, None, names, data.quality[own]))
    save_image(contact_sheet(cells, columns=4, cell=300), path)

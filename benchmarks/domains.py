"""How good are the masks of `boxel label` on images of many kinds, and how far can their quality be trusted?

    python benchmarks/domains.py
    python benchmarks/domains.py --others runs/version-0.1 grabcut-ellipse rectangle --pictures runs/pictures

Labels the boxes of two sets of photos and of each `domains/measure/NAME/val.json`, at most --instances of each, and
compares with the true masks. --others compares with the masks of other teachers, e.g. those of the network of an older
version. --pictures draws the best and the worst masks of each dataset. The network of version 0.1 is in the history:

    mkdir -p runs/version-0.1
    git archive 88eb638~1 src/boxel/weights/boxcaseg | tar -x --strip-components 4 -C runs/version-0.1
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from _record import Table, arguments
from _runs import read_coco
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

import boxel
from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.evaluation.boxes import instance_ious, measure_masks
from boxel.evaluation.overlaps import encode_boundary
from boxel.masks.crops import crop_window
from boxel.viz.config import DrawConfig
from boxel.viz.output import contact_sheet, save_image
from boxel.viz.overlays import overlay
from boxel.viz.text import write_text

KINDS = {
    "butterflies": "butterflies",
    "cables": "cables",
    "crackforest": "cracks in roads",
    "cwfid": "crop and weed plants from above",
    "davis2016": "animals, vehicles and people in videos",
    "droplets": "droplets, microscope",
    "magnetic_tile": "defects of magnetic tiles",
    "neu_seg": "defects of rolled steel",
    "pigs": "pigs in pens",
    "polyps": "polyps, endoscopy",
    "sat_buildings": "buildings, satellite",
    "screws_mvtec": "defects of screws",
    "surgical_tools": "surgical instruments",
    "teeth_xray": "teeth, x-ray",
    "tshirts": "T-shirts",
    "wood_debris": "branches, boxes, bags outdoors",
}
MEASURES = ("mask_iou", "IoU@50", "IoU@75", "spearman", "calibration_error")
NAMES = {"rectangle": "filled box", "grabcut-ellipse": "GrabCut"}
SHOWN = 5
"""Number of best masks and of worst ones that are drawn."""
SIDE = 220
"""Longer side of a picture of a mask in pixels."""


def main() -> None:
    """Record a row per dataset and the mean of the domains."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--teacher", default="boxcaseg")
    parser.add_argument(
        "--others", nargs="+", default=["grabcut-ellipse", "rectangle"], help="teachers to compare with"
    )
    parser.add_argument("--instances", type=int, default=300, help="of each dataset at most")
    parser.add_argument(
        "--pictures", type=Path, help="folder for the pictures of the best and the worst masks"
    )
    args = parser.parse_args()
    others = [NAMES.get(name, Path(name).name) for name in args.others]
    columns = ["instances", *MEASURES, "boundary IoU", *others]
    table = Table("domains", args.teacher, columns, first="images", title=f"Masks by `{args.teacher}`")
    rows = []
    for kind, truth in read_all(args.data):
        some = first_images(truth, args.instances)
        made = boxel.label(some.without_masks(), teacher=args.teacher)
        rows.append(measure(some, made, args.others))
        if args.pictures:
            save_image(draw_extremes(some, made), args.pictures / f"{kind}.jpg")
        table.add(kind, len(some.labels), *rows[-1])
    table.add("mean of the domains", None, *np.nanmean(rows[-len(KINDS) :], axis=0))
    table.write()


def read_all(data: Path) -> Iterator[tuple[str, Annotations]]:
    """Read two sets of photos, and the domains."""
    yield "COCO images", read_coco(data, "val_masks")
    voc = boxel.read(data / "voc2007")
    yield "Pascal VOC images", voc.select_images(np.unique(voc.image_index[voc.has_mask]))
    for name, kind in KINDS.items():
        yield kind, read_domain(data, name)


def read_domain(data: Path, name: str, part: str = "val") -> Annotations:
    """Read a part of `domains/measure/NAME`."""
    folder = data / "domains" / "measure" / name
    return boxel.read(folder / f"{part}.json", images=folder / "images")


def measure(truth: Annotations, made: Annotations, others: Sequence[str]) -> list[float]:
    """Return the numbers of a row."""
    boxes, found = truth.without_masks(), measure_masks(truth, made)
    compared = [measure_masks(truth, boxel.label(boxes, teacher=other))["mask_iou"] for other in others]
    own = [found.get(key, np.nan) for key in MEASURES]
    return [*own, boundary_iou(truth, made), *compared]


def boundary_iou(truth: Annotations, made: Annotations) -> float:
    """Return the mean IoU of the boundaries of masks with the true ones."""
    _, predicted, true = instance_ious(truth, made)
    ious = np.zeros(len(true))
    for row, (one, other) in enumerate(zip(predicted.tolist(), true.tolist(), strict=True)):
        if one >= 0 and made.has_segmentation[one]:
            pair = encode_boundary(made.rle(one)), encode_boundary(truth.rle(other))
            ious[row] = coco_mask.iou([pair[0]], [pair[1]], [0])[0, 0]
    return float(ious.mean())


def draw_extremes(truth: Annotations, made: Annotations) -> NDArray[np.uint8]:
    """Draw the best masks and, below, the worst: the pixels, the mask with its IoU and quality, and the true mask."""
    ious, predicted, true = instance_ious(truth, made)
    order, cells = np.argsort(-ious), []
    for row in [*order[:SHOWN], *order[-SHOWN:]]:
        one, other = int(predicted[row]), int(true[row])
        image = read_image(truth.image_path(int(truth.image_index[other])))
        found = made.mask(one, image.shape[:2]) if one >= 0 and made.has_segmentation[one] else None
        quality = np.nan if found is None else made.quality[one]
        views = [
            draw_part(image, truth.boxes[other], mask)
            for mask in (None, found, truth.mask(other, image.shape[:2]))
        ]
        strip = np.full((SIDE // 9, 3 * SIDE, 3), 255, np.uint8)
        write_text(strip, f"IoU {ious[row]:.2f}, quality {quality:.2f}", 4, 2, SIDE // 12, (0, 0, 0))
        cells.append(np.concatenate([contact_sheet(views, columns=3, cell=SIDE), strip]))
    return contact_sheet(cells, columns=2, cell=3 * SIDE)


def draw_part(
    image: NDArray[np.uint8], box: NDArray[np.float32], mask: NDArray[np.bool_] | None
) -> NDArray[np.uint8]:
    """Draw the part of an image around a box, enlarged or reduced to `SIDE`, with or without a mask."""
    left, top, right, bottom = crop_window(box, 0.1).round().astype(int).clip(0)
    part = image[top:bottom, left:right]
    scale = SIDE / max(part.shape[:2])
    part = cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    if mask is None:
        return part
    inside = cv2.resize(mask[top:bottom, left:right].astype(np.uint8), part.shape[1::-1]) > 0
    return overlay(part, [[0, 0, *part.shape[1::-1]]], inside[None], config=DrawConfig(boxes=False))


def first_images(data: Annotations, instances: int) -> Annotations:
    """Keep the first images that have no more than so many instances together, and at least one image."""
    counts = np.bincount(data.image_index, minlength=len(data))
    keep = max(1, int((counts.cumsum() <= instances).sum()))
    return data.select_images(list(range(keep)))


if __name__ == "__main__":
    main()

"""How good are the masks of `boxel label` on images of many kinds, and how far can their quality be trusted?

    python benchmarks/domains.py

Labels the boxes of two sets of photos and of each `domains/measure/NAME/val.json`, at most --instances of each, and
compares with the true masks. --others compares with the masks of other teachers, e.g. those of the network of an older
version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from _record import Table, arguments
from _runs import read_coco
from pycocotools import mask as coco_mask

import boxel
from boxel.data import Annotations
from boxel.evaluation.boxes import instance_ious, measure_masks
from boxel.evaluation.coco import encode_boundary

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


def main() -> None:
    """Record a row per dataset and the mean of the domains."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--teacher", default="boxcaseg")
    parser.add_argument(
        "--others", nargs="+", default=["grabcut-ellipse", "rectangle"], help="teachers to compare with"
    )
    parser.add_argument("--instances", type=int, default=300, help="of each dataset at most")
    args = parser.parse_args()
    others = [NAMES.get(name, Path(name).name) for name in args.others]
    columns = ["instances", *MEASURES, "boundary IoU", *others]
    table = Table("domains", args.teacher, columns, first="images", title=f"Masks by `{args.teacher}`")
    rows = []
    for kind, truth in read_all(args.data):
        some = first_images(truth, args.instances)
        rows.append(measure(some, args.teacher, args.others))
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


def measure(truth: Annotations, teacher: str, others: Sequence[str]) -> list[float]:
    """Return the numbers of a row."""
    boxes = truth.without_masks()
    made = boxel.label(boxes, teacher=teacher)
    found = measure_masks(truth, made)
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


def first_images(data: Annotations, instances: int) -> Annotations:
    """Keep the first images that have no more than so many instances together, and at least one image."""
    counts = np.bincount(data.image_index, minlength=len(data))
    keep = max(1, int((counts.cumsum() <= instances).sum()))
    return data.select_images(list(range(keep)))


if __name__ == "__main__":
    main()

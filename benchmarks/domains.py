"""How good are the masks of `boxel label` on images of many kinds, and how far can their quality be trusted?

    python benchmarks/domains.py

Labels the boxes of each `domains/measure/NAME/val.json`, at most --instances of each, and compares with the true masks.
"""

from __future__ import annotations

import numpy as np
from _record import Table, arguments

import boxel
from boxel.data import Annotations
from boxel.evaluation.boxes import measure_masks

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


def main() -> None:
    """Record a row per dataset and their mean."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--teacher", default="boxcaseg")
    parser.add_argument("--instances", type=int, default=300, help="of each dataset at most")
    args = parser.parse_args()
    columns = ["instances", *MEASURES, "filled box"]
    table = Table("domains", args.teacher, columns, first="images", title=f"Masks by `{args.teacher}`")
    rows = []
    for name, kind in KINDS.items():
        folder = args.data / "domains" / "measure" / name
        truth = first_images(boxel.read(folder / "val.json", images=folder / "images"), args.instances)
        boxes = truth.without_masks()
        measured = measure_masks(truth, boxel.label(boxes, teacher=args.teacher))
        filled = measure_masks(truth, boxel.label(boxes, teacher="rectangle"))
        rows.append([*(measured.get(key, np.nan) for key in MEASURES), filled["mask_iou"]])
        table.add(kind, len(truth.labels), *rows[-1])
    table.add("mean", None, *np.nanmean(rows, axis=0))
    table.write()


def first_images(data: Annotations, instances: int) -> Annotations:
    """Keep the first images that have no more than so many instances together, and at least one image."""
    counts = np.bincount(data.image_index, minlength=len(data))
    keep = max(1, int((counts.cumsum() <= instances).sum()))
    return data.select_images(list(range(keep)))


if __name__ == "__main__":
    main()

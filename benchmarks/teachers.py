"""How good are the masks of each teacher, how fast, and how far can their quality be trusted?

    python benchmarks/teachers.py

Masks are made from the boxes of `coco/val_masks.json` by `boxel.label` with its defaults and compared with the true
ones.
"""

from __future__ import annotations

import time

import numpy as np
from _record import Table, arguments
from _runs import read_coco

from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label

TEACHERS = ["rectangle", "ellipse", "grabcut", "grabcut-ellipse", "crf", "boxcaseg-boxes", "boxcaseg"]
MEASURES = ("mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class")
RANKING = ("spearman", "calibration_error", "gain")


def main() -> None:
    """Print and record a row per teacher."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--teachers", nargs="+", default=TEACHERS, help="names, model folders or sam:PATH")
    parser.add_argument("--crf", action="store_true", help="refine masks with a CRF")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    truth = read_coco(args.data, "val_masks")
    boxes = truth.without_masks()
    name = "crf" if args.crf else "teachers"
    table = Table("label-quality", name, [*MEASURES, "ms per box", *RANKING], first="teacher")
    for teacher in args.teachers:
        began = time.perf_counter()
        made = label(boxes, teacher=teacher, crf=args.crf, workers=args.workers)
        spent = 1000 * (time.perf_counter() - began) / int((~boxes.iscrowd).sum())
        row = dict.fromkeys(RANKING, np.nan) | measure_masks(truth, made)
        measured = [float(row[name]) for name in (*MEASURES, *RANKING)]
        table.add(teacher, *measured[: len(MEASURES)], round(spent, 1), *measured[len(MEASURES) :])
    table.write(seeds=[0])


if __name__ == "__main__":
    main()

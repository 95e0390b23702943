"""How good are the masks of each teacher, how far can their quality be trusted, and how long do they take?

    python benchmarks/teachers.py
    python benchmarks/teachers.py --time

Masks are made from the boxes of `coco/val_masks.json` by `boxel.label` with its defaults and compared with the true
ones. The accuracy does not depend on the machine; --time records the milliseconds too, for an idle one.
"""

from __future__ import annotations

import time

import numpy as np
from _record import Table, arguments
from _runs import read_coco

from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label

TEACHERS = ["rectangle", "ellipse", "grabcut-ellipse", "boxcaseg-boxes", "boxcaseg"]
MEASURES = ("mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class")
RANKING = ("spearman", "calibration_error", "gain")


def main() -> None:
    """Print and record a row per teacher."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--teachers", nargs="+", default=TEACHERS, help="names, model folders or sam:PATH")
    parser.add_argument("--crf", action="store_true", help="refine masks with a CRF")
    parser.add_argument("--time", action="store_true", help="record milliseconds per box too")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    truth = read_coco(args.data, "val_masks")
    boxes = truth.without_masks()
    name = "crf" if args.crf else "teachers"
    table = Table("label-quality", name, [*MEASURES, *RANKING], first="teacher")
    times = []
    for teacher in args.teachers:
        began = time.perf_counter()
        made = label(boxes, teacher=teacher, crf=args.crf, workers=args.workers)
        times.append(1000 * (time.perf_counter() - began) / int((~boxes.iscrowd).sum()))
        row = dict.fromkeys(RANKING, np.nan) | measure_masks(truth, made)
        table.add(teacher, *(float(row[name]) for name in (*MEASURES, *RANKING)))
    table.write(seeds=[0])
    if args.time:
        speed = Table("label-quality", f"{name}-speed", ["ms per box"], first="teacher", title="Time per box")
        for teacher, spent in zip(args.teachers, times, strict=True):
            speed.add(teacher, round(spent, 1))
        speed.write(seeds=[0])


if __name__ == "__main__":
    main()

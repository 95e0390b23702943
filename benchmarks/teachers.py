"""How good are the masks of each teacher, how fast, and how far can their quality be trusted?

    python benchmarks/teachers.py ../shared/data/coco/val_masks.json --images ../shared/data/coco/images

Masks are made from the boxes of a set that has true ones, by `boxel.label` with its defaults, and compared with these.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from boxel.data import read
from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label

TEACHERS = ["rectangle", "ellipse", "grabcut", "grabcut-ellipse", "crf", "boxcaseg-boxes", "boxcaseg"]
FIGURES = ("mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class")
RANKING = ("spearman", "calibration_error", "gain")


def main() -> None:
    """Print a row a teacher."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="annotations with masks")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--teachers", nargs="+", default=TEACHERS, help="names, model folders or sam:PATH")
    parser.add_argument("--crf", action="store_true", help="draw masks to the colors")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()

    truth = read(args.data, images=args.images)
    boxes = truth.without_masks()
    columns = [*FIGURES, "ms a box", *RANKING]
    print(f"| teacher | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}", flush=True)
    for teacher in args.teachers:
        began = time.perf_counter()
        made = label(boxes, teacher=teacher, crf=args.crf, workers=args.workers, report=lambda _: None)
        spent = 1000 * (time.perf_counter() - began) / int((~boxes.iscrowd).sum())
        row = dict.fromkeys(RANKING, np.nan) | measure_masks(made, truth)
        cells = [f"{row[name]:.3f}" for name in FIGURES]
        cells += [f"{spent:.1f}", *(f"{row[name]:.3f}" for name in RANKING)]
        print(f"| {teacher} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

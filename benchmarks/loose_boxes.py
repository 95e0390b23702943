"""What loose boxes cost the masks made of them, and what saying so (`--box-slack`) gives back.

    python benchmarks/loose_boxes.py ../shared/data/coco/val_masks.json --images ../shared/data/coco/images

Each side of each box is moved by up to so much of the box's width or height, in or out, and masks are made by
`boxel.label` with its defaults, without and with that much of slack.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from boxel.data import read
from boxel.data.augment import jitter_boxes
from boxel.evaluation.given_boxes import measure_masks
from boxel.labeling.label import label

FIGURES = ("mask_iou", "IoU@50", "IoU@75", "spearman", "calibration_error")


def main() -> None:
    """Print a row for each looseness and slack."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="annotations with masks")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--teacher", default="boxcaseg")
    parser.add_argument("--loose", type=float, nargs="+", default=[0, 0.05, 0.1, 0.2])
    args = parser.parse_args()

    truth = read(args.data, images=args.images)
    print(f"| sides off by up to | --box-slack | {' | '.join(FIGURES)} |\n|---|---|{'---|' * len(FIGURES)}")
    for loose in args.loose:
        boxes = jitter_boxes(truth.without_masks(), loose) if loose else truth.without_masks()
        for slack in sorted({0.0, loose}):
            made = label(boxes, teacher=args.teacher, box_slack=slack, report=lambda _: None)
            row = measure_masks(made, truth)
            cells = " | ".join(f"{row[name]:.3f}" for name in FIGURES)
            print(f"| {loose:.0%} | {slack} | {cells} |", flush=True)


if __name__ == "__main__":
    main()

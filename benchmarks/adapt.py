"""What `boxel label --adapt` gains on a set: masks of its boxes before and after the model is trained on these boxes.

    python benchmarks/adapt.py ../shared/data/coco/val_masks.json --images ../shared/data/coco/images --minutes 20
    python benchmarks/adapt.py ../shared/data/voc2007 --minutes 20

The masks of the set are only measured with. An adapted model in --out is not trained again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from boxel.data import read
from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label
from boxel.training.adapt import adapt

FIGURES = ("mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class")


def main() -> None:
    """Print a row before and a row after."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="annotations with masks, of some boxes at least")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--teacher", default="boxcaseg")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/adapted"))
    args = parser.parse_args()

    truth = read(args.data, images=args.images)
    boxes = truth.without_masks()
    print(f"| {args.data} | {' | '.join(FIGURES)} |\n|---|{'---|' * len(FIGURES)}", flush=True)
    adapted = adapt(boxes, args.minutes, args.out / args.teacher, args.teacher)
    for name, teacher in (("before", args.teacher), ("after", adapted.as_posix())):
        figures = measure_masks(label(boxes, teacher=teacher, report=lambda _: None), truth)
        print(f"| {name} | {' | '.join(f'{figures[key]:.3f}' for key in FIGURES)} |", flush=True)


if __name__ == "__main__":
    main()

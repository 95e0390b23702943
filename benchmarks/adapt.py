"""What `boxel adapt` gains on a dataset: masks of its boxes before and after the network is trained on these boxes.

    python benchmarks/adapt.py --minutes 20
    python benchmarks/adapt.py --minutes 20 --teacher boxcaseg-boxes

The true masks are used for measuring only. An adapted model in --out is not trained again.
"""

from __future__ import annotations

from pathlib import Path

from _record import Table, arguments
from _runs import read_coco

from boxel.data import read
from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label
from boxel.training.adapt import adapt

MEASURES = ("mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class")


def main() -> None:
    """Print a row before and a row after."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--dataset", choices=["coco", "voc2007"], default="coco")
    parser.add_argument("--teacher", default="boxcaseg")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/adapted"))
    args = parser.parse_args()

    truth = read_coco(args.data, "val_masks") if args.dataset == "coco" else read(args.data / "voc2007")
    boxes = truth.without_masks()
    name = f"adapting {args.dataset} {args.teacher}"
    table = Table("label-quality", name, MEASURES, title=f"Adapting {args.teacher} to {args.dataset}")
    adapted = adapt(
        boxes, args.out / f"{args.dataset}_{args.teacher}", teacher=args.teacher, minutes=args.minutes
    )
    for name, teacher in (("before", args.teacher), ("after", adapted.as_posix())):
        measured = measure_masks(truth, label(boxes, teacher=teacher))
        table.add(name, *(measured[key] for key in MEASURES))
    table.write(seeds=[0])


if __name__ == "__main__":
    main()

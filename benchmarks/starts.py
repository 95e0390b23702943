"""How many steps of BoxInst does the bundled detector save, on kinds of images that it has not seen?

    python benchmarks/starts.py

The network of `boxinst-small` learns from boxes, with hints of `boxcaseg`, all classes as one, and is measured on other
images of the same kind. It starts from the bundled detector, which finds objects already, or with features of
ImageNet. Each number of steps is a training of its own, as the learning rate falls towards the end.
"""

from __future__ import annotations

from pathlib import Path

from _record import Table, arguments
from plateau import Row, train
from retention import SETS, read_set

from boxel.evaluation import coco_ap
from boxel.evaluation.run import predict_dataset
from boxel.models.io import load

RUNS = [("`boxinst`", 0), ("`boxinst`", 30), ("`boxinst`", 120), ("ImageNet", 120), ("ImageNet", 480)]
"""Starts and steps."""


def main() -> None:
    """Train what is missing, and record box AP and mask AP."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/starts"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["pigs", "tshirts", "teeth_xray"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    note = "AP on other images of the same kind, all classes as one; learned from boxes, with hints of `boxcaseg`."
    columns = ["start", "steps", "box AP", "mask AP"]
    table = Table("boxinst", "starts", columns, "images", "Steps that the bundled detector saves", note)
    for name in args.sets:
        training, truth = read_set(args.data, name)
        boxes, truth = training.without_masks(), truth.class_agnostic()
        for start, steps in RUNS:
            row = Row(start, len(boxes), steps)
            results = predict_dataset(load(train(row, boxes, args.out / name, args.seed)), truth)
            box_ap, mask_ap = (coco_ap(truth, results, kind)["AP"] for kind in ("bbox", "segm"))
            table.add(SETS[name], start, steps, box_ap, mask_ap)
    table.write([args.seed])


if __name__ == "__main__":
    main()

"""Instances by voting on the persons of COCO images: bootstrapping, weights, and what true classes would give.

    python benchmarks/fcrn_instances.py --out runs/persons

Trains `fcrn-coco-small` for the classes of pixels, and on its features `fcrn-instances-small` with the changes of each
row (Table 6). Both learn from true masks; with --boxes-only from masks that `boxcaseg-boxes` predicts in the boxes,
none of whose true masks it has seen. Measured on the validation images with predicted and with true classes of pixels
(the paper's pilot experiment). Rows already in --out are not trained again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _record import Table, arguments
from _runs import read_coco, train_once

import boxel
from boxel.evaluation import region_ap
from boxel.evaluation.run import predict_dataset
from boxel.evaluation.semantic import measure_segmenter

ROWS: dict[str, dict[str, Any]] = {
    "plain": {"model.min_kept": None, "model.size_power": 0.0},
    "bootstrapped": {"model.size_power": 0.0},
    "bootstrapped, weights": {},
}
CATEGORIES = ["person"]


def main() -> None:
    """Train what is missing, then record the rows."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/persons"))
    parser.add_argument("--boxes-only", action="store_true", help="learn from masks made of boxes")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, help="of each training, instead of those of the recipes")
    args = parser.parse_args()

    truth = read_coco(args.data, "val_masks").select_categories(CATEGORIES)
    if args.boxes_only:
        boxes = read_coco(args.data, "train_boxes")
        training = boxel.label(boxes, teacher="boxcaseg-boxes", out=args.out / "masks.json")
    else:
        training = read_coco(args.data, "train_masks")
    kind = "boxes" if args.boxes_only else "masks"
    length = {} if args.steps is None else {"steps": args.steps}
    semantic = args.out / f"{kind}_semantic"
    train_once(
        "fcrn",
        training,
        semantic,
        config="fcrn-coco-small",
        categories=CATEGORIES,
        **length,
    )
    pixels = measure_segmenter(truth, boxel.load(semantic))
    table = Table("fcrn", f"persons-{kind}", ["IoU of persons", "pixel accuracy"], first="learned from")
    table.add(kind, pixels["per_class"][CATEGORIES[0]], pixels["pixel_accuracy"])
    table.write(seeds=[0])
    columns = ["classes of pixels", "mAPr50", "mAPr70", "mAPr_vol"]
    table = Table("fcrn", f"persons-instances-{kind}", columns, first="learned from, localization")
    for row in args.rows:
        out = args.out / f"{kind}_{row.replace(',', '').replace(' ', '_')}"
        train_once(
            "fcrn-instances",
            training,
            out,
            config="fcrn-instances-small",
            semantic=semantic,
            init=semantic,
            **length,
            **ROWS[row],
        )
        model = boxel.load(out)
        for classes in ("predicted", "true"):
            measured = region_ap(truth, predict_dataset(model, truth, true_classes=classes == "true"))
            table.add(f"{kind}, {row}", classes, *(measured[name] for name in columns[1:]))
    table.write(seeds=[0])


if __name__ == "__main__":
    main()

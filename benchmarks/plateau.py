"""What limits BoxInst on a few hundred COCO images: the steps, the images or the features that it starts from?

    python benchmarks/plateau.py

The network of `boxinst-small` learns from boxes, all classes as one, and is measured on other images. Rows differ in
one thing: the length of the training, the number of images, or the start (features of ImageNet, or the bundled
detector, which has learned from 2,995 images, among them these).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from _record import Table, arguments
from _runs import read_coco, row_folder, train_once

from boxel.data import Annotations
from boxel.evaluation import coco_ap
from boxel.evaluation.run import predict_dataset
from boxel.models.io import load


class Row(NamedTuple):
    """One run."""

    start: str
    images: int
    steps: int


ROWS = [
    *(Row("ImageNet", 455, steps) for steps in (250, 500, 1000, 2000)),
    Row("ImageNet", 114, 1000),
    *(Row("`boxinst`", 455, steps) for steps in (0, 250)),
]
FROM_IMAGENET = {"model.backbone": "tf_efficientnet_lite0"}  # a network of its own, so no start by the recipe
SETTINGS = {"config": "boxinst-small", "class_agnostic": True, "data.val_share": 0.0, "device": "cpu"}


def main() -> None:
    """Train what is missing, and record box AP and mask AP."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/plateau"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    training, truth = read_coco(args.data, "train_boxes"), read_coco(args.data, "val_masks").class_agnostic()
    order = np.random.default_rng(args.seed).permutation(len(training))
    note = "AP on 95 other images, all classes as one; learned from boxes, with hints of `boxcaseg`."
    columns = ["images", "steps", "box AP", "AP of large boxes", "mask AP"]
    table = Table("boxinst", "plateau", columns, "start", "COCO images: steps, images and features", note)
    for row in ROWS:
        part = training.select_images(np.sort(order[: row.images]))
        results = predict_dataset(load(train(row, part, args.out, args.seed)), truth)
        boxes, masks = (coco_ap(truth, results, kind) for kind in ("bbox", "segm"))
        table.add(row.start, row.images, row.steps, boxes["AP"], boxes["APl"], masks["AP"])
    table.write([args.seed])


def train(row: Row, training: Annotations, out: Path, seed: int) -> str | Path:
    """Train a run unless it is finished; return its folder, or the start if it has no steps."""
    if not row.steps:
        return row.start.strip("`")
    folder = row_folder(out, f"{row.start.strip('`')} {row.images} {row.steps}", seed)
    start = FROM_IMAGENET if row.start == "ImageNet" else {}
    train_once("boxinst", training, folder, **SETTINGS | start | {"steps": row.steps, "seed": seed})
    return folder


if __name__ == "__main__":
    main()

"""FCRN on CamVid at a quarter of its pixels: the trends of Tables 1, 3, 4 and 7.

    python benchmarks/fcrn_camvid.py --out runs/camvid --seeds 0 1 2

Each row is `fcrn-camvid-small` with what the row changes, a few minutes on one core. It learns from 312 of
the 367 training images, drawn once, and is measured on the other 55; with --val it learns from all and is measured on
the 101 validation images. Rows already in --out are not trained again. With --init each row starts from the weights of
one run, e.g. one that has learned from all pixels:

    python benchmarks/fcrn_camvid.py --rows "all pixels" --steps 3000 --out runs/camvid_long
    python benchmarks/fcrn_camvid.py --init runs/camvid_long/all_pixels_0 --out runs/camvid_on
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from _record import Table, arguments, spread
from _runs import row_folder, train_once

import boxel
from boxel.data import read
from boxel.evaluation.semantic import measure_segmenter
from boxel.training.prepare import split

SLOW = {"optim.backbone_lr": 0.1}
"""The backbone learns at a tenth of the rate, so that runs scatter less."""

ROWS: dict[str, dict[str, Any]] = {
    "all pixels": {"model.min_kept": None, "model.threshold": None},
    "256 hardest": {"model.min_kept": 256, "model.threshold": None},
    "512 hardest": {"model.threshold": None},
    "1024 hardest": {"model.min_kept": 1024, "model.threshold": None},
    "up to 0.6, 512 at least": {},
    "up to 0.6, 512 at least, in the second half": {"model.bootstrap_after": 0.5},
    "all pixels, slow backbone": {"model.min_kept": None, "model.threshold": None} | SLOW,
    "up to 0.6, 512 at least, in the second half, slow backbone": {"model.bootstrap_after": 0.5} | SLOW,
    "up to 0.6, field of view 48": {"model.dilation": 1},
    "up to 0.6, field of view 80": {"model.dilation": 2},
    "up to 0.6, field of view 176": {"model.dilation": 5},
    "up to 0.6, stride 8": {"model.output_stride": 8, "model.dilation": 6},
}
"""The recipe has stride 16 and a field of view of 112; the row of stride 8 has one of 104."""

RARE = ("pole", "sign", "pedestrian", "bicyclist")


def main() -> None:
    """Train what is missing, then record mean and standard deviation over the seeds of each row."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/camvid"))
    parser.add_argument("--recipe", default="fcrn-camvid-small")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--init", type=Path, help="a run that each row starts from")
    parser.add_argument("--steps", type=int, help="instead of those of the recipe")
    parser.add_argument("--val", action="store_true", help="measure on the validation images")
    args = parser.parse_args()

    common: dict[str, Any] = {"config": args.recipe}
    if args.init:
        common["init"] = args.init
    if args.steps:
        common["steps"] = args.steps
    training = read(args.data / "camvid", split="train", class_list="camvid")
    if args.val:
        truth = read(args.data / "camvid", split="val", class_list="camvid")
    else:
        training, held_out = split(training, 0.15, seed=0)
        assert held_out is not None
        truth = held_out
    name = (
        "camvid-small" + "-val" * args.val + "-resumed" * bool(args.init) + "-seeds" * (len(args.seeds) > 1)
    )
    columns = ["mean IoU", "rare classes", "pixel accuracy", "mean class accuracy", "minutes"]
    table = Table("fcrn", name, columns, first="learned from")
    for row in args.rows:
        found, minutes = [], []
        for seed in args.seeds:
            out = row_folder(args.out, row + " val" * args.val, seed)
            minutes.append(train_once("fcrn", training, out, seed=seed, **common, **ROWS[row]))
            measured = measure_segmenter(truth, boxel.load(out))
            print(f"{row} {seed}: {measured['per_class']}", flush=True)
            rare = float(np.mean([measured["per_class"][name] for name in RARE]))
            names = ("pixel_accuracy", "mean_class_accuracy")
            found.append([measured["mean_iou"], rare, *(measured[name] for name in names)])
        spent = [value for value in minutes if value is not None]
        table.add(row, *map(spread, zip(*found, strict=True)), (spent and round(np.mean(spent), 1)) or None)
    table.write(args.seeds)


if __name__ == "__main__":
    main()

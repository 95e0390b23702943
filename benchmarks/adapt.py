"""What `boxel adapt` gains on images of many kinds: masks before and after, from boxes alone or from a few true masks.

    python benchmarks/adapt.py --masks 0 10 30
    python benchmarks/adapt.py --masks 10 --domains cables crackforest

The model is adapted to `domains/measure/NAME/train.json`, of which it sees as many masks, and measured on `val.json`.
Adapted models in --out are not trained again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _record import Table, arguments
from domains import KINDS, first_images, read_domain

from boxel.data import Annotations
from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label
from boxel.training.adapt import adapt

NOTE = (
    "Mask IoU on the images of `val`, before `boxcaseg` is adapted to the boxes of `train` and so many of their masks, "
    "drawn at random, and after. Where both are equal, `boxel adapt` left the network as it is."
)

MAX_BOXES = 300
"""Boxes of a dataset that are adapted to, at most."""


def main() -> None:
    """Record a row per dataset, and their mean."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--masks", type=int, nargs="+", default=[0, 10, 30])
    parser.add_argument("--domains", nargs="+", choices=[*KINDS], default=[*KINDS])
    parser.add_argument("--teacher", default="boxcaseg")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--instances", type=int, default=100, help="of each dataset at most, to measure on")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of masks")
    parser.add_argument("--out", type=Path, default=Path("runs/adapted"))
    args = parser.parse_args()
    columns = ["before", *(f"{number} masks" if number else "from boxes" for number in args.masks)]
    name, to = ("adapted", "a few masks") if any(args.masks) else ("adapted-boxes", "boxes alone")
    table = Table("domains", name, columns, first="images", title=f"Adapting to {to}", note=NOTE)
    rows = []
    for name in args.domains:
        training, truth = read_domain(args.data, name, "train"), read_domain(args.data, name)
        training, truth = first_images(training, MAX_BOXES), first_images(truth, args.instances)
        teachers = [args.teacher]
        for number in args.masks:
            few = keep_masks(training, number, args.seed)
            out = args.out / f"{name}_{number}_{args.seed}"
            teachers.append(str(adapt(few, out, teacher=args.teacher, minutes=args.minutes)))
        boxes = truth.without_masks()
        rows.append([measure_masks(truth, label(boxes, teacher=one))["mask_iou"] for one in teachers])
        table.add(KINDS[name], *rows[-1])
    if len(rows) > 1:
        table.add("mean", *np.mean(rows, axis=0))
    table.write(seeds=[args.seed])


def keep_masks(data: Annotations, number: int, seed: int) -> Annotations:
    """Keep so many masks, drawn at random; the other instances have boxes only."""
    known = np.flatnonzero(data.has_mask & data.has_box & ~data.iscrowd)
    chosen = np.random.default_rng(seed).permutation(known)[:number]
    return data.keep_masks(chosen)


if __name__ == "__main__":
    main()

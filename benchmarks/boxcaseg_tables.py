"""Tables 4, 5 and 6 of the BoxCaseg paper at a small scale: heads, sampling, and the share of the salient head.

    python benchmarks/boxcaseg_tables.py --out runs/tables --seeds 3

Each row is the paper's network on a small backbone with small crops, trained for a few minutes on one core from the
boxes of `coco/train_boxes.json` and the masks of `salient`, and measured on the boxes of `coco/val_masks.json`. Rows
already in `--out` are not trained again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _record import Table, arguments, spread
from _runs import read_coco, train_once

import boxel
from boxel.data import Annotations
from boxel.evaluation.boxes import measure_masks

SMALL: dict[str, Any] = {
    "model": {"backbone": "tf_efficientnet_lite0", "weights": "lite", "side": 128},
    "crops": {"side": 128, "salient": "box", "overlap_drop": 0.75},
    "data": {"min_box": 12, "val_share": 0, "workers": 0},
    "optim": {
        "name": "adamw",
        "lr": 0.001,
        "backbone_lr": 0.3,
        "weight_decay": 0.02,
        "clip": 5.0,
        "reference_batch": 0,
    },
    "schedule": {"kind": "cosine", "warmup": 50},
    "ema": 0.99,
    "steps": 500,
    "batch_size": 16,
}
"""The paper's losses and heads; backbone, side, length and optimizer are those of a few minutes on a core. Salient
images are cut to their box like any other instance. Shown whole, as the paper has them, and with the paper's optimizer,
the heads that learn from them alone failed on boxes."""

ROWS: dict[str, dict[str, Any]] = {
    "4: weak": {"model.heads": ["weak"]},
    "4: salient": {"model.heads": ["salient"]},
    "4: weak + transferred (6: alpha 0)": {"model.heads": ["weak", "transferred"]},
    "4: weak + salient (6: alpha 1)": {"model.heads": ["weak", "salient"]},
    "4: all (5: 9:7, 6: alpha 0.7)": {},
    "5: random": {"crops.random": True},
    "5: 8:8": {"crops.salient_ratio": [8, 8]},
    "5: 13:3": {"crops.salient_ratio": [13, 3]},
    "6: alpha 0.5": {"model.alpha": 0.5},
}


def main() -> None:
    """Print a row per setting: mean over the seeds, and their standard deviation."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=SMALL["steps"])
    args = parser.parse_args()

    training, truth = read_coco(args.data, "train_boxes"), read_coco(args.data, "val_masks")
    names = ("mask_iou", "mask_iou_by_class", "IoU@50", "IoU@75")
    table = Table(
        "boxcaseg", "tables", names, first="row", title="Tables 4, 5 and 6 of the paper, in miniature"
    )
    for row, changes in ROWS.items():
        found = []
        for seed in range(args.seeds):
            out = args.out / f"{list(ROWS).index(row)}_seed{seed}"
            settings = {"config": SMALL, "seed": seed, "steps": args.steps} | changes
            train_once("boxcaseg", training, out, salient=args.data / "salient", **settings)
            found.append(measure(out, truth))
        table.add(row, *(spread([one[name] for one in found]) for name in names))
    table.write(range(args.seeds))


def measure(run: Path, truth: Annotations) -> dict[str, float]:
    """Measure a run's masks in true boxes."""
    made = boxel.label(truth.without_masks(), teacher=run.as_posix(), merge="none")
    return measure_masks(truth, made)


if __name__ == "__main__":
    main()

"""Proxy Mask R-CNN: the same network and steps on true masks, on generated masks, and on boxes (BoxCaseg, Table 7).

    python benchmarks/proxy_masks.py --out runs/proxy

Labels the boxes of `train_boxes.json` with a teacher that has seen no masks of them, trains `mask-rcnn-small` on all
categories as one for each row and seed (finished trainings in --out are not repeated), and measures AP50 and AP75 of
masks on the validation images, relative to those from true masks, with a paired bootstrap over images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from _record import Table, arguments
from _runs import read_coco, row_folder, train_once

import boxel
from boxel.data import Annotations
from boxel.evaluation import coco_ap, paired_bootstrap
from boxel.evaluation.run import predict_dataset
from boxel.models.io import load

LABELS: dict[str, dict[str, Any]] = {
    "proxies": {"merge": "none"},
    "proxies, merged": {},
    "proxies, smaller on top": {"merge": "smaller"},
    "proxies, merged, dropped at 0.85": {"drop": 0.85},
}
"""Rows that learn from masks made of boxes, and how these are made."""

ROWS = ("masks", *LABELS, "boxes, MIL")


def main() -> None:
    """Train what is missing, then measure and record the rows."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/proxy"))
    parser.add_argument("--teacher", default="boxcaseg-boxes", help="one that has learned from boxes only")
    parser.add_argument("--recipe", default="mask-rcnn-small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    args = parser.parse_args()

    truth = read_coco(args.data, "val_masks").class_agnostic()
    found = {row: [detections(args, row, seed, truth) for seed in args.seeds] for row in args.rows}
    columns = ["mask AP", "AP50", "AP75", "box AP", "AP50 / masks", "AP75 / masks"]
    table = Table("mask-rcnn", "one-seed" if len(args.seeds) == 1 else "seeds", columns, first="learned from")
    for row, runs in found.items():
        masks = [coco_ap(truth, run, "segm") for run in runs]
        boxes = [coco_ap(truth, run, "bbox")["AP"] for run in runs]
        cells = [fmean(ap[name] for ap in masks) for name in ("AP", "AP50", "AP75")] + [fmean(boxes)]
        ratios = [against(runs, found["masks"], truth, at) if "masks" in found else "" for at in (0.5, 0.75)]
        table.add(row, *cells, *ratios)
    table.write(args.seeds)


def against(runs: list[Any], masks: list[Any], truth: Annotations, threshold: float) -> str:
    """The ratio to the runs on true masks at a threshold of IoU, with its interval."""
    ratio = paired_bootstrap(truth, runs, masks, thresholds=[threshold])
    return f"{ratio['ratio']:.3f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def detections(args: argparse.Namespace, row: str, seed: int, truth: Annotations) -> list[dict[str, Any]]:
    """COCO results of one run on the validation images, from its file if it is there."""
    run = row_folder(args.out, row, seed)
    file = run / "val_results.json"
    if not file.exists():
        # All images are learned from, so there are none to choose the best step by: the last one counts.
        settings = {"config": args.recipe, "class_agnostic": True, "seed": seed, "data.val_share": 0.0}
        loss = {"model.mask_loss": "mil"} if row == "boxes, MIL" else {}
        images = args.data / "coco" / "images"
        train_once("mask-rcnn", learned_from(args, row), run, images=images, **settings, **loss)
        file.write_text(json.dumps(predict_dataset(load(run), truth, batch_size=4)))
    return json.loads(file.read_text())


def learned_from(args: argparse.Namespace, row: str) -> Path:
    """The annotations of a row; masks that are made of boxes are made once."""
    if row not in LABELS:
        return args.data / "coco" / ("train_masks.json" if row == "masks" else "train_boxes.json")
    out = args.out / f"{row.replace(', ', '_').replace(' ', '_')}.json"
    boxel.label(
        args.data / "coco" / "train_boxes.json",
        images=args.data / "coco" / "images",
        out=out,
        teacher=args.teacher,
        **LABELS[row],
    )
    return out


if __name__ == "__main__":
    main()

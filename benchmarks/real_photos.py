"""Boxes against masks on COCO images: the same network, steps and seeds, measured on images never trained on.

    python benchmarks/real_photos.py --out runs/photos

Trains `coco-small` on all categories as one, from boxes, from masks, from boxes without hints, and from boxes with the
projection loss alone (Table 3 of BoxInst), for each seed; finished trainings in --out are not repeated. Then measures
mask AP on the validation images, also with the same boxes filled, and ratios with a paired bootstrap over images, and
draws what the networks of the first seed detect in photographs of scikit-image.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from _record import Table, arguments
from _runs import read_coco, train_once

from boxel.data import Annotations
from boxel.data.images import read_image
from boxel.data.samples import sample_images
from boxel.demo.scenes import summarize_detections
from boxel.evaluation import coco_ap, fill_boxes, paired_bootstrap
from boxel.evaluation.run import predict_dataset
from boxel.models.io import load
from boxel.viz.output import contact_sheet, save_image
from boxel.viz.overlays import overlay

MEASURES = ("mask_AP", "mask_AP50", "mask_AP75", "box_AP", "mask_iou")
BOXES: dict[str, Any] = {"data.mask_classes": []}
KINDS: dict[str, dict[str, Any]] = {
    "boxes": BOXES,
    "masks": {},
    "no hints": BOXES | {"model.hint_weight": 0.0},
    "projection": BOXES | {"model.hint_weight": 0.0, "model.affinity_weight": 0.0},
}


def main() -> None:
    """Train what is missing, then measure and print."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    parser.add_argument("--recipe", default="coco-small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args()

    truth = read_coco(args.data, "val_masks").class_agnostic()
    results = {}
    for seed in args.seeds:
        for kind in args.kinds:
            results[kind, seed] = detections(args, kind, seed, truth)
    report(results, truth, args.out)
    draw(
        [args.out / f"{kind}_{args.seeds[0]}" for kind in args.kinds if kind in ("boxes", "masks")],
        args.out / "photos.jpg",
    )


def detections(args: argparse.Namespace, kind: str, seed: int, truth: Annotations) -> list[dict[str, Any]]:
    """COCO results of one run on the validation images, from its file if it is there."""
    run = args.out / f"{kind}_{seed}"
    file = run / "val_results.json"
    if not file.exists():
        # All images are learned from, so there are none to choose the best step by: the last one counts.
        settings = {"config": args.recipe, "class_agnostic": True, "seed": seed, "data.val_share": 0.0}
        minutes = train_once("boxinst", read_coco(args.data, "train_masks"), run, **settings, **KINDS[kind])
        file.write_text(json.dumps(predict_dataset(load(run), truth, batch_size=4)))
        (run / "minutes.json").write_text(json.dumps(minutes and round(minutes, 1)))
    return json.loads(file.read_text())


def report(results: dict[tuple[str, int], list[dict[str, Any]]], truth: Annotations, out: Path) -> None:
    """Record the measures of each run, and their ratios."""
    columns = ["seed", "mask AP", "AP50", "AP75", "box AP", "mask IoU of matches", "filled", "minutes"]
    table = Table("boxinst", "photos", columns, first="trained from")
    rows = {}
    for (kind, seed), found in results.items():
        filled = coco_ap(truth, fill_boxes(truth, found), "segm")["AP"]
        row = rows[f"{kind} {seed}"] = summarize_detections(truth, found)
        minutes = json.loads((out / f"{kind}_{seed}" / "minutes.json").read_text())
        table.add(kind, seed, *(row[name] for name in MEASURES), filled, minutes)
    table.write(sorted({seed for _, seed in results}))

    kinds = {kind for kind, _ in results}
    seeds = sorted({seed for _, seed in results})
    for kind in sorted(kinds):
        values = [rows[f"{kind} {seed}"]["mask_AP"] for seed in seeds if (kind, seed) in results]
        spread = f" +- {stdev(values):.4f}" if len(values) > 1 else ""
        print(f"{kind}: mask AP {mean(values):.4f}{spread} over {len(values)} seeds")
    table = Table("boxinst", "photos-ratio", ["seeds", "ratio", "95 % interval"], first="mask AP")
    for other in ("masks", "projection", "no hints"):
        shared = [seed for seed in seeds if ("boxes", seed) in results and (other, seed) in results]
        for group in [[seed] for seed in shared] + ([shared] if len(shared) > 1 else []):
            ratio = paired_bootstrap(
                truth, [results["boxes", seed] for seed in group], [results[other, seed] for seed in group]
            )
            interval = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
            table.add(f"boxes / {other}", ", ".join(map(str, group)), ratio["ratio"], interval)
    table.write(seeds)


def draw(runs: list[Path], out: Path, names: Sequence[str] = ("astronaut", "coffee", "coins")) -> None:
    """Each row: a photo and, for each run, the four most confident detections."""
    models = [load(run) for run in runs]
    cells = []
    for path in map(sample_images().image_path, range(len(sample_images()))):
        if path.stem in names:
            photo = read_image(path)
            cells.append(photo)
            for model in models:
                found = model.predict(photo)
                best = slice(4)  # best first
                labels = [f"{score:.2f}" for score in found.scores[best]]
                colors = np.arange(len(labels))
                cells.append(overlay(photo, found.boxes[best], found.masks[best], colors, labels))
    save_image(contact_sheet(cells, columns=1 + len(models), cell=300), out)


if __name__ == "__main__":
    main()

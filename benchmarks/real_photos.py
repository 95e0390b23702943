"""Boxes against masks on real photos: the same network, steps and seeds, measured once on photos never trained on.

    python benchmarks/real_photos.py ../shared/data/coco --out runs/photos

Trains `recipes/coco_small.yaml` on all categories as one, from boxes, from masks, from boxes without hints, and from
boxes with the projection loss alone (Table 3 of BoxInst), for each seed; finished trainings in --out are not repeated.
Then measures mask AP on the validation photos, beside "box filled" from the same detections, and the ratio with a
paired bootstrap over photos, and draws what the first seed's networks find in photos of scikit-image.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from boxel.data import Annotations, read
from boxel.data.images import read_image
from boxel.data.samples import photos
from boxel.demo.scenes import figures
from boxel.evaluation import coco_ap, fill_boxes, paired_bootstrap
from boxel.evaluation.run import predict_set
from boxel.models.io import load
from boxel.training import train
from boxel.viz.overlays import contact_sheet, overlay, save_image

BOXES: dict[str, Any] = {"data.mask_classes": []}
KINDS: dict[str, dict[str, Any]] = {
    "boxes": BOXES,
    "masks": {},
    "no hints": BOXES | {"model.hint_weight": 0.0},
    "projection": BOXES | {"model.hint_weight": 0.0, "model.affinity_weight": 0.0},
}


def main() -> None:
    """Train what is missing, then measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coco", type=Path, help="folder with images/, train_masks.json and val_masks.json")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"))
    parser.add_argument("--recipe", default="recipes/coco_small.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args()

    truth = read(args.coco / "val_masks.json", images=args.coco / "images").class_agnostic()
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
    """COCO results of one run on the validation photos, from its file if it is there."""
    run = args.out / f"{kind}_{seed}"
    file = run / "val_results.json"
    if not file.exists():
        began = time.monotonic()
        if not (run / "model.safetensors").exists():
            train(
                "boxinst",
                args.coco / "train_masks.json",
                images=args.coco / "images",
                out=run,
                config=args.recipe,
                class_agnostic=True,
                resume=(run / "checkpoints" / "last.ckpt").exists(),
                # All photos are learned from, so there are none to pick the best step by: the last one counts.
                **{"seed": seed, "data.val_share": 0.0, **KINDS[kind]},
            )
        found = predict_set(load(run), truth, batch_size=4)
        file.write_text(json.dumps(found))
        (run / "minutes.json").write_text(json.dumps(round((time.monotonic() - began) / 60, 1)))
    return json.loads(file.read_text())


def report(results: dict[tuple[str, int], list[dict[str, Any]]], truth: Annotations, out: Path) -> None:
    """Print the table and write it as JSON."""
    rows = {}
    for (kind, seed), found in results.items():
        filled = coco_ap(fill_boxes(found, truth), truth, "segm")["AP"]
        rows[f"{kind} {seed}"] = figures(found, truth) | {
            "filled_AP": filled,
            "minutes": json.loads((out / f"{kind}_{seed}" / "minutes.json").read_text()),
        }
    print("run            " + "".join(f"{name:>10}" for name in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:<15}" + "".join(f"{value:10.3f}" for value in row.values()))

    kinds = {kind for kind, _ in results}
    seeds = sorted({seed for _, seed in results})
    for kind in sorted(kinds):
        values = [rows[f"{kind} {seed}"]["mask_AP"] for seed in seeds if (kind, seed) in results]
        spread = f" +- {stdev(values):.4f}" if len(values) > 1 else ""
        print(f"{kind}: mask AP {mean(values):.4f}{spread} over {len(values)} seeds")
    bootstrap = {}
    for other in ("masks", "projection", "no hints"):
        shared = [seed for seed in seeds if ("boxes", seed) in results and (other, seed) in results]
        for group in [[seed] for seed in shared] + ([shared] if len(shared) > 1 else []):
            ratio = paired_bootstrap(
                [results["boxes", seed] for seed in group], [results[other, seed] for seed in group], truth
            )
            name = f"boxes / {other}, seed {' '.join(map(str, group))}"
            bootstrap[name] = ratio
            print(f"{name}: {ratio['ratio']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]")
    (out / "report.json").write_text(json.dumps({"rows": rows, "bootstrap": bootstrap}, indent=1))


def draw(runs: list[Path], out: Path, names: Sequence[str] = ("astronaut", "coffee", "coins")) -> None:
    """Each row: a photo and, for each run, the four surest finds in it."""
    models = [load(run) for run in runs]
    cells = []
    for path in map(photos().image_path, range(len(photos()))):
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

"""What does each part of the recipe of the bundled BoxCaseg bring?

    python benchmarks/levers.py --steps 300

Trains a network with the whole recipe, and one without each part, all from the same start for as many steps, and
measures their masks on photos and on images of kinds that none has seen. Trained networks in --out are not trained
again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from _record import Table, arguments
from _runs import jitter_boxes
from domains import first_images, read_all
from teach import PHOTOS, Recipe, read_sets, teach

from boxel.data import Annotations
from boxel.evaluation.boxes import measure_masks
from boxel.labeling.api import label

LOOSE = 0.1
"""Share of the width or height by which each side of a loose box is off, at most."""

RECIPES = {
    "the whole recipe": Recipe(),
    "without small datasets": replace(Recipe(), weights=PHOTOS),
    "without drawn images": replace(Recipe(), drawn=False),
    "without loose boxes": replace(Recipe(), loose=False),
    "without the neighbors' boxes": replace(Recipe(), neighbors=False),
    "without the finest level": replace(Recipe(), fine_channels=0),
    "without weight on the outline": replace(Recipe(), outline=False),
    "with crops of 160 pixels": replace(Recipe(), side=160),
    "with crops of 224 pixels": replace(Recipe(), side=224),
}

NOTE = (
    "Mask IoU. All networks are short trainings from `boxcaseg-boxes`; the bundled one has learned for far longer. "
    "Loose: each side of the boxes of the COCO images is off by up to 10 %. Most of the gain on unlike kinds comes "
    "from drawn images and small datasets, that on loose boxes from loosened ones. The neighbors' boxes and the "
    "finest level start with weights of zero and bring little in so few steps; the weight on the outline brings "
    "nothing here."
)


def main() -> None:
    """Train what is missing, and record a row per recipe."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rate", type=float, default=7e-4, help="learning rate")
    parser.add_argument("--instances", type=int, default=100, help="of each dataset at most")
    parser.add_argument("--out", type=Path, default=Path("runs/levers"))
    args = parser.parse_args()
    truth = {kind: first_images(data, args.instances) for kind, data in read_all(args.data)}
    photos, sets = dict(read_all(args.data))["COCO images"], read_sets(args.data)
    title = f"What each part of the recipe brings in {args.steps} steps"
    columns = ["COCO images", "loose", "mean of the kinds", "worst quarter", "IoU@75 of the kinds"]
    table = Table("domains", "levers", columns, first="recipe", title=title, note=NOTE)
    for number, (name, recipe) in enumerate(RECIPES.items()):
        out = args.out / str(number)
        if not (out / "model.safetensors").exists():
            teach(sets, out, recipe, "boxcaseg-boxes", args.steps, args.rate)
        table.add(name, *measure(out, photos, truth))
    table.write(seeds=[0])


def measure(model: Path, photos: Annotations, truth: dict[str, Annotations]) -> list[float]:
    """Return the numbers of a row."""
    exact = compare(model, photos, photos)["mask_iou"]
    loose = compare(model, photos, jitter_boxes(photos, LOOSE))["mask_iou"]
    kinds = [compare(model, data, data) for kind, data in truth.items() if not kind.endswith("images")]
    ious = np.sort([found["mask_iou"] for found in kinds])
    worst = ious[: len(ious) // 4].mean()
    return [exact, loose, ious.mean(), worst, float(np.mean([found["IoU@75"] for found in kinds]))]


def compare(model: Path, truth: Annotations, boxes: Annotations) -> dict[str, float]:
    """Label boxes and compare with the true masks."""
    return measure_masks(truth, label(boxes.without_masks(), teacher=str(model)))


if __name__ == "__main__":
    main()

"""How good the segments are that an update of BoxSup chooses: their IoU with the true masks, by option.

    python benchmarks/boxsup_labels.py --segments runs/segments --run runs/boxsup

The true masks are used for measuring only. Without --run the first update is measured, in which the network has no
say; with it an update by that run's network, on the images that it has learned from or on others. Segments that are
missing are made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _record import Table, arguments
from _runs import read_coco
from boxsup_coco import VOC

import boxel
from boxel.data.images import read_image
from boxel.data.label_maps import has_background
from boxel.evaluation.proposals import candidate_ious
from boxel.models.boxsup import BoxSupDataset, UpdateConfig
from boxel.models.boxsup.update import choose_candidates, compute_costs
from boxel.models.semantic.inference import predict_probabilities, semantic_inference_config
from boxel.proposals import ProposalConfig
from boxel.training.boxsup import MIN_PROBABILITY

BASE = UpdateConfig(top_k=1)
PAPER = replace(BASE, regression_weight=3.0, shape_weight=0.0, min_share=0.0)
ROWS = {
    "lowest cost": BASE,
    "drawn from 5": replace(BASE, top_k=5),
    "drawn from 20": replace(BASE, top_k=20),
    "lambda 0.1": replace(BASE, regression_weight=0.1),
    "lambda 1": replace(BASE, regression_weight=1.0),
    "lambda 3": replace(BASE, regression_weight=3.0),
    "no ellipse": replace(BASE, shape_weight=0.0),
    "ellipse by 0.1": replace(BASE, shape_weight=0.1),
    "ellipse by 1": replace(BASE, shape_weight=1.0),
    "no min share": replace(BASE, min_share=0.0),
    "min share 0.2": replace(BASE, min_share=0.2),
    "min share 0.5": replace(BASE, min_share=0.5),
    "lambda 0.3, neither": replace(PAPER, regression_weight=0.3),
    "lambda 1, neither": replace(PAPER, regression_weight=1.0),
    "as in the paper": PAPER,
    "as in the paper, printed normalizer": replace(PAPER, normalizer="printed"),
    "loss over the box alone": replace(BASE, enlarge=0.0),
    "over a box larger by 0.4": replace(BASE, enlarge=0.4),
}


def main() -> None:
    """Print and record one row per setting."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--segments", type=Path, default=Path("segments"))
    parser.add_argument("--source", default="mcg")
    parser.add_argument("--run", help="a run of boxsup or fcrn with these categories")
    parser.add_argument("--count", type=int, default=100, help="images, evenly chosen")
    parser.add_argument("--min-side", type=float, default=16, help="of the boxes measured, in pixels")
    args = parser.parse_args()
    truth = read_coco(args.data, "train_masks").select_categories(VOC)
    model = None if args.run is None else boxel.load(args.run)
    dataset = BoxSupDataset(truth.without_masks(), args.segments, ProposalConfig(source=args.source))
    found: dict[str, list[float]] = {name: [] for name in ["best there is", *ROWS]}
    images = np.linspace(0, len(truth) - 1, min(args.count, len(truth))).round().astype(int).tolist()
    for image in images:
        own = dataset.undecided(image)
        if not len(own):
            continue
        photo, candidates = read_image(truth.image_path(image)), dataset.candidates(image)
        if model is None:
            logs = np.zeros((len(truth.categories) + 1, *photo.shape[:2]), dtype=np.float32)
        else:
            pixels = torch.from_numpy(photo).permute(2, 0, 1)
            found_here = predict_probabilities(model.network, pixels, semantic_inference_config(model))
            logs = found_here.clamp(min=MIN_PROBABILITY).log().numpy()
        boxes, labels = truth.boxes[own], truth.labels[own] + int(has_background(truth))
        large = np.flatnonzero((boxes[:, 2:] - boxes[:, :2]).min(1) >= args.min_side)
        masks = [truth.mask(int(i), photo.shape[:2]) for i in own]
        ious = candidate_ious(candidates, np.stack([mask > 0 for mask in masks if mask is not None]))
        found["best there is"] += ious.max(0)[large].tolist()
        for name, config in ROWS.items():
            chosen = choose_candidates(
                compute_costs(candidates, boxes, labels, logs, config),
                config.top_k,
                np.random.default_rng([0, image]),
            )
            found[name] += [float(ious[chosen[k], k]) if chosen[k] >= 0 else 0.0 for k in large]
    print(f"{len(found['best there is'])} boxes")
    name = f"segments-{args.source}" + "-trained" * bool(args.run)
    table = Table("boxsup", name, ["mean IoU with the truth", "share above 0.5"], first="choice")
    for choice, values in found.items():
        table.add(choice, np.mean(values), np.mean(np.array(values) > 0.5))
    table.write()


if __name__ == "__main__":
    main()

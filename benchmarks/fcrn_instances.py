"""Instances by voting on the persons of COCO photos: bootstrapping, weights, and what true classes would give.

    python benchmarks/fcrn_instances.py ../shared/data/coco --out runs/persons

Trains `recipes/fcrn_coco_small.yaml` for the classes of pixels, and `recipes/fcrn_instances_small.yaml` on it and from
its features with what each row changes (Table 6); from true masks and, with --boxes-only, from masks that
`boxcaseg-boxes` made of the boxes and that no true mask of these photos has taught. Measured on the validation photos
with predicted and with true classes of pixels (the paper's pilot experiment). Rows already in --out are not trained
again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import boxel
from boxel.data import Annotations, read
from boxel.data.images import read_image
from boxel.data.label_maps import IGNORE, label_map
from boxel.evaluation import region_ap
from boxel.evaluation.maps import measure_maps
from boxel.evaluation.run import predict_set
from boxel.models.inference import inference_config, predict_batch

ROWS: dict[str, dict[str, Any]] = {
    "plain": {"model.min_kept": None, "model.size_power": 0.0},
    "bootstrapped": {"model.size_power": 0.0},
    "bootstrapped, weights": {},
}
CATEGORIES = ["person"]


def main() -> None:
    """Train what is missing, then print a row each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("coco", type=Path, help="folder with images/, train_*.json and val_masks.json")
    parser.add_argument("--out", type=Path, default=Path("runs/persons"))
    parser.add_argument("--recipes", type=Path, default=Path("recipes"))
    parser.add_argument("--boxes-only", action="store_true", help="learn from masks made of boxes")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, help="of each training, in place of the recipes'")
    args = parser.parse_args()

    images = args.coco / "images"
    truth = read(args.coco / "val_masks.json", images=images).select_categories(CATEGORIES)
    if args.boxes_only:
        training = boxel.label(
            args.coco / "train_boxes.json",
            images=images,
            teacher="boxcaseg-boxes",
            out=args.out / "masks.json",
        )
    else:
        training = read(args.coco / "train_masks.json", images=images)
    kind = "boxes" if args.boxes_only else "masks"
    length = {} if args.steps is None else {"steps": args.steps}
    semantic = args.out / f"{kind}_semantic"
    train(
        "fcrn",
        training,
        semantic,
        config=args.recipes / "fcrn_coco_small.yaml",
        categories=CATEGORIES,
        **length,
    )
    print(f"classes of pixels: {measure_maps(boxel.load(semantic), truth)}", flush=True)
    print(
        "| learned from, localization | classes of pixels | mAPr50 | mAPr70 | mAPr_vol |\n|---|---|---|---|---|"
    )
    for row in args.rows:
        out = args.out / f"{kind}_{row.replace(',', '').replace(' ', '_')}"
        recipe = args.recipes / "fcrn_instances_small.yaml"
        train(
            "fcrn-instances",
            training,
            out,
            config=recipe,
            semantic=semantic,
            init=semantic,
            **length,
            **ROWS[row],
        )
        model = boxel.load(out)
        for classes, found in {
            "predicted": predict_set(model, truth),
            "true": with_true_classes(model, truth),
        }.items():
            figures = region_ap(found, truth)
            cells = " | ".join(f"{figures[name]:.3f}" for name in ("mAPr50", "mAPr70", "mAPr_vol"))
            print(f"| {kind}, {row} | {classes} | {cells} |", flush=True)


def train(method: str, data: Annotations, out: Path, **options: Any) -> None:
    """Train a run that is not there yet, or go on with one that was stopped."""
    if not (out / "model.safetensors").exists():
        resume = (out / "checkpoints" / "last.ckpt").exists()
        boxel.train(method, data, out=out, resume=resume, **options)


def with_true_classes(model: Any, truth: Annotations) -> list[dict[str, Any]]:
    """Results where the true class of each pixel stands for the semantic network's."""
    detect, looking = model.detect, inference_config(model)
    results = []
    for image in range(len(truth)):
        photo = read_image(truth.image_path(image))
        labels = torch.from_numpy(label_map(truth, image, photo.shape[:2]).astype(np.int64))
        labels[labels == IGNORE] = 0
        true = F.one_hot(labels, model.num_classes + 1).permute(2, 0, 1).float()

        def known(shown: list[torch.Tensor], true: torch.Tensor = true) -> Any:
            stride = model.network.stride
            cells = [-(-side // stride) for side in shown[0].shape[-2:]]
            return detect(shown, [F.interpolate(true[None], cells, mode="nearest-exact")[0]])

        model.detect = known
        (found,) = predict_batch(model, [photo], looking)
        results += found.to_coco(truth.image_ids[image])
    model.detect = detect
    return results


if __name__ == "__main__":
    main()

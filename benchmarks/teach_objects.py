"""Train the bundled BoxInst, which finds objects of any class, from the boxes of photos and of many small datasets.

    python benchmarks/teach_objects.py runs/objects
    python benchmarks/teach_objects.py runs/more --init runs/objects --seed 1    # on from there

No mask of the datasets is used: masks are those that `boxcaseg` makes of the boxes, and those that are not trusted are
left out. A stopped training resumes.
"""

from __future__ import annotations

from pathlib import Path

from _record import arguments
from _runs import read_coco, train_once
from teach import DOMAINS

import boxel
from boxel.data import Annotations

MODEL = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "lite",
    "frozen_stages": 2,
    "neck_channels": 96,
    "level_scale": 0.5,
    "head_convs": 2,
    "mask_convs": 2,
    "mask_channels": 64,
    "max_instances": 32,
}
RECIPE = {
    "method": "boxinst",
    "model": MODEL,
    "data": {"class_agnostic": True, "workers": 0},
    "label": "boxcaseg",
    "augment": {
        "short_sides": [224, 256, 288, 320, 352, 384],
        "max_size": 576,
        "color": 0.3,
        "crop": 0.5,
        "copy_paste": 0.5,
    },
    "optim": {"name": "adamw", "lr": 0.001, "backbone_lr": 0.1, "reference_batch": 0, "clip": 10.0},
    "schedule": {"kind": "cosine", "warmup": 50, "hold": 0.3},
    "batch_size": 4,
    "ema": 0.995,
    "validate_every": 1,
    "checkpoint_every": 100,
}


def main() -> None:
    """Train, and write a run folder."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument(
        "--init", help="the run to start from; by default only the backbone has learned, ImageNet's classes"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    val = read_coco(args.data, "val_masks")
    options = {"config": RECIPE, "steps": args.steps, "init": args.init, "seed": args.seed, "val": val}
    train_once("boxinst", read_boxes(args.data), args.out, **options)


def read_boxes(data: Path) -> list[Annotations]:
    """Read the boxes of the photos and of the small datasets whose licenses allow released weights."""
    photos = [read_coco(data, "train_boxes"), boxel.read(data / "voc2007"), boxel.read(data / "salient")]
    folders = [data / "domains" / "learn" / name for name in ("coco_new", *DOMAINS)]
    small = [boxel.read(folder / "all_boxes.json", images=folder / "images") for folder in folders]
    return [found.without_masks() for found in (*photos, *small)]


if __name__ == "__main__":
    main()

"""Instances by voting on the persons of COCO images: bootstrapping, weights, and what true classes would give.

    python benchmarks/fcrn_instances.py --out runs/persons

Trains `fcrn-coco-small` for the classes of pixels, and on its features `fcrn-instances-small` with the changes of each
row (Table 6). Both learn from true masks; with --boxes-only from masks that `boxcaseg-boxes` predicts in the boxes,
none of whose true masks it has seen. Measured on the validation images with predicted and with true classes of pixels
(the paper's pilot experiment), and once with true boxes too: more than this ceiling the cells cannot give. --long-side
and --stride make them finer. Rows already in --out are not trained again.

    python benchmarks/fcrn_instances.py --out runs/persons_fine --long-side 640 --stride 8 \
        --rows "bootstrapped, weights"
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from _record import Table, arguments
from _runs import read_coco, train_once
from torch import Tensor, nn

import boxel
from boxel.data import Annotations
from boxel.data.label_maps import make_instance_map
from boxel.evaluation import region_ap
from boxel.evaluation.run import predict_dataset
from boxel.evaluation.semantic import measure_segmenter
from boxel.models.fcrn.instances import OFFSET_SCALE, FCRNInstances, to_offsets

ROWS: dict[str, dict[str, Any]] = {
    "plain": {"model.min_kept": None, "model.size_power": 0.0},
    "bootstrapped": {"model.size_power": 0.0},
    "bootstrapped, weights": {},
}
CATEGORIES = ["person"]


def main() -> None:
    """Train what is missing, then record the rows."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/persons"))
    parser.add_argument("--boxes-only", action="store_true", help="learn from masks made of boxes")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--steps", type=int, help="of each training, instead of those of the recipes")
    parser.add_argument("--long-side", type=int, help="of images, instead of those of the recipes")
    parser.add_argument("--stride", type=int, choices=[8, 16], help="pixels per cell, instead of 16")
    args = parser.parse_args()

    truth = read_coco(args.data, "val_masks").select_categories(CATEGORIES)
    if args.boxes_only:
        boxes = read_coco(args.data, "train_boxes")
        training = boxel.label(boxes, teacher="boxcaseg-boxes", out=args.out / "masks.json")
    else:
        training = read_coco(args.data, "train_masks")
    kind = "boxes" if args.boxes_only else "masks"
    given = {"steps": args.steps, "views.long_side": args.long_side, "model.output_stride": args.stride}
    changes = {name: value for name, value in given.items() if value is not None}
    semantic = args.out / f"{kind}_semantic"
    train_once(
        "fcrn",
        training,
        semantic,
        config="fcrn-coco-small",
        categories=CATEGORIES,
        **changes,
    )
    pixels = measure_segmenter(truth, boxel.load(semantic))
    table = Table("fcrn", f"persons-{kind}", ["IoU of persons", "pixel accuracy"], first="learned from")
    table.add(kind, pixels["per_class"][CATEGORIES[0]], pixels["pixel_accuracy"])
    table.write(seeds=[0])
    columns = ["classes of pixels", "mAPr50", "mAPr70", "mAPr_vol"]
    table = Table("fcrn", f"persons-instances-{kind}", columns, first="learned from, localization")
    for row in args.rows:
        out = args.out / f"{kind}_{row.replace(',', '').replace(' ', '_')}"
        train_once(
            "fcrn-instances",
            training,
            out,
            config="fcrn-instances-small",
            semantic=semantic,
            init=semantic,
            **changes,
            **ROWS[row],
        )
        model = boxel.load(out)
        for classes in ("predicted", "true"):
            measured = region_ap(truth, predict_dataset(model, truth, true_classes=classes == "true"))
            table.add(f"{kind}, {row}", classes, *(measured[name] for name in columns[1:]))
    measured = measure_ceiling(model, truth)
    table.add("ceiling: true boxes", "true", *(measured[name] for name in columns[1:]))
    table.write(seeds=[0])


def measure_ceiling(model: Any, truth: Annotations) -> dict[str, float]:
    """Measure the instances of a model on the true class and box of each cell."""
    results = []
    for image in range(len(truth)):
        one = truth.select_images([image])
        model.network = TrueNetwork(model, one)
        results += predict_dataset(model, one, true_classes=True)
        model.network = model.network.replaced
    return region_ap(truth, results)


class TrueNetwork(nn.Module):
    """The true boxes of the cells of one image, instead of what the localization network of a model predicts."""

    def __init__(self, model: FCRNInstances, one: Annotations) -> None:
        super().__init__()
        self.replaced = model.network
        self.stride, self.padding_color = model.network.stride, model.network.padding_color
        self.count, (self.width, self.height) = model.num_classes, one.image_size(0)
        self.factor = model.settings["views"]["long_side"] / max(self.width, self.height)
        owners = make_instance_map(one, 0, (self.height, self.width))
        self.owners = torch.from_numpy(owners.astype(np.int64)).clamp(min=0)
        self.boxes = torch.from_numpy(one.boxes).float() if len(one.boxes) else torch.zeros(1, 4)

    def forward(self, batch: Tensor) -> Tensor:
        """Return (1, 4 K, h, w) offsets."""
        rows, columns = (
            ((torch.arange(cells // self.stride) + 0.5) * self.stride / self.factor)
            .long()
            .clamp(max=side - 1)
            for cells, side in zip(batch.shape[-2:], (self.height, self.width), strict=True)
        )
        boxes = self.factor * self.boxes[self.owners[rows][:, columns]].permute(2, 0, 1)
        return (to_offsets(boxes, self.stride) / OFFSET_SCALE).repeat(self.count, 1, 1)[None]


if __name__ == "__main__":
    main()

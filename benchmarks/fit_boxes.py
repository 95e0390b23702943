"""Does a box that is fitted to its mask (`model.fit_boxes`) fit the object better than the predicted one?

    python benchmarks/fit_boxes.py --out runs/retention

The detectors are the runs `BoxInst, boxes` of `retention.py`, and the bundled one on COCO images.
"""

from __future__ import annotations

from pathlib import Path

from _record import Table
from _runs import read_coco
from retention import arguments_of_runs, trained_runs

from boxel.data import Annotations
from boxel.evaluation import coco_ap
from boxel.evaluation.run import predict_dataset
from boxel.models.io import load

KIND = "BoxInst, boxes"
CELLS = (None, 32.0, 8.0, 2.0, 0.0)
NOTE = (
    "Box AP on other images, all classes as one, of the same detections: with the predicted boxes, and with boxes that "
    "are fitted to the masks. The mask counts as much as the predicted box in objects as large as a square of 32, 8 or "
    "2 cells of 4 pixels, more in larger ones; or it counts alone."
)


def main() -> None:
    """Record a row per kind of images."""
    args = arguments_of_runs(__doc__).parse_args()
    columns = ["predicted", "32 cells", "8 cells", "2 cells", "box around the mask"]
    table = Table("boxinst", "fit-boxes", columns, "images", "Boxes fitted to masks", NOTE)
    runs: dict[str, tuple[str | Path, Annotations]] = {
        images: (run, truth) for images, run, _, truth in trained_runs(args, KIND)
    }
    runs["COCO images, `boxinst` as it is"] = "boxinst", read_coco(args.data, "val_masks")
    for images, (run, truth) in runs.items():
        model, truth = load(run), truth.class_agnostic()
        found = []
        for model.config.fit_boxes in CELLS:
            found.append(coco_ap(truth, predict_dataset(model, truth, batch_size=4), "bbox")["AP"])
        table.add(images, *found)
    table.write([args.seed])


if __name__ == "__main__":
    main()

"""What each part is worth on generated scenes: losses, loose boxes, longer training.

    python benchmarks/scenes.py --out runs/scenes

Each row is the demo's network and recipe with a few settings changed, trained on 540 of 600 scenes of seed 1 and
measured on 200 scenes of seed 4, which were not used to choose anything. Finished rows in --out are not trained again,
so several calls with different --rows may run side by side; the last one prints all of them. The curve of loose boxes
goes to loose_boxes.png.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from _record import Table, arguments
from _runs import jitter_boxes, train_once

from boxel.data import Annotations, read
from boxel.data.synthetic import write_scenes
from boxel.demo.scenes import summarize_detections
from boxel.evaluation import coco_ap, fill_boxes
from boxel.evaluation.run import predict_dataset
from boxel.models.io import load

NO_AREA: dict[str, Any] = {"model.area_weight": 0.0}
ROWS: dict[str, dict[str, Any]] = {
    "masks": {},
    "boxes": {},
    "boxes, no area cost": NO_AREA,
    "boxes, as the paper says": NO_AREA
    | {
        "model.tau": 0.1,
        "model.affinity_normalizer": "edges",
        "model.affinity_inside": "either",
        "model.affinity_warmup": 0.0,
        "model.projection_weight": 1.0,
        "model.affinity_weight": 1.0,
    },
    "boxes, projection only": NO_AREA | {"model.affinity_weight": 0.0},
    "boxes loose by 5 %": {"jitter": 0.05},
    "boxes loose by 10 %": {"jitter": 0.1},
    "boxes loose by 20 %": {"jitter": 0.2},
    "masks, long": {},
    "boxes, long": {},
    "boxes, projection only, long": NO_AREA | {"model.affinity_weight": 0.0},
}
LOOSE = {0: "boxes", 5: "boxes loose by 5 %", 10: "boxes loose by 10 %", 20: "boxes loose by 20 %"}


def main() -> None:
    """Train what is missing, then print what there is."""
    parser = arguments(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="ROW", default=list(ROWS))
    parser.add_argument("--steps", type=int, default=600, help="steps of the other rows")
    parser.add_argument("--long", type=int, default=2400, help="steps of the long rows")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    if not (args.out / "train" / "masks.json").exists():
        write_scenes(args.out / "train", 600, seed=1)
    truth = write_scenes(args.out / "hidden", 200, seed=4)
    for name in args.rows:
        print(name, json.dumps(measures(name, args, truth)), flush=True)
    report(args)


def training_steps(name: str, args: argparse.Namespace) -> int:
    """Length of a row's training."""
    return args.long if name.endswith("long") else args.steps


def folder(name: str, args: argparse.Namespace) -> Path:
    """Where a row's run is."""
    return (
        args.out
        / f"{''.join(c if c.isalnum() else '_' for c in name)}_{training_steps(name, args)}_{args.seed}"
    )


def measures(name: str, args: argparse.Namespace, truth: Annotations) -> dict[str, float]:
    """What a row measures, from its file if it is there."""
    run = folder(name, args)
    file = run / "measures.json"
    if not file.exists():
        settings: dict[str, Any] = {"seed": args.seed, "steps": training_steps(name, args)} | ROWS[name]
        # The first word of a row is what it learns from.
        data = read(args.out / "train" / f"{name[:5]}.json", images=args.out / "train" / "images")
        data = jitter_boxes(data, settings.pop("jitter", 0.0), args.seed)
        minutes = train_once("boxinst", data, run, config="demo", **settings)
        found = predict_dataset(load(run), truth, batch_size=4)
        filled = coco_ap(truth, fill_boxes(truth, found), "segm")["AP"]
        row = summarize_detections(truth, found) | {"filled_AP": filled, "minutes": minutes}
        file.write_text(json.dumps(row))
    return json.loads(file.read_text())


def report(args: argparse.Namespace) -> None:
    """Print all finished rows as a Markdown table and draw the curve of loose boxes."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    files = {name: folder(name, args) / "measures.json" for name in ROWS}
    rows = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    headers = ["mask AP", "AP50", "AP75", "box AP", "the same boxes, filled", "mask IoU", "minutes"]
    table = Table("boxinst", "scenes", headers, first="trained from")
    columns = ("mask_AP", "mask_AP50", "mask_AP75", "box_AP", "filled_AP", "mask_iou")
    for name, row in rows.items():
        table.add(name, *(row[column] for column in columns), row["minutes"])
    table.write([args.seed])

    known = {loose: rows[name]["mask_AP"] for loose, name in LOOSE.items() if name in rows}
    if len(known) < 2:
        return
    figure, axes = pyplot.subplots(figsize=(5, 3.2))
    axes.plot(list(known), list(known.values()), marker="o")
    axes.set(xlabel="each side of a box is off by up to (%)", ylabel="mask AP", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(args.out / "loose_boxes.png", dpi=150)


if __name__ == "__main__":
    main()

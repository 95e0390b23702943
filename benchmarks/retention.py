"""How much of a segmenter's accuracy remains if it learns from boxes: mask AP from boxes against mask AP from masks.

    python benchmarks/retention.py
    python benchmarks/retention.py --sets pigs droplets --kinds masks boxes --seeds 0 1 2

Each run learns from `domains/measure/NAME/train.json`, all classes as one, and is measured on `val.json`. Runs that the
table has are not made again, so that it can grow in parts; `--again` makes them again.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from _record import RESULTS, Table, arguments, spread
from _runs import train_once
from domains import KINDS, read_domain

from boxel.data import Annotations
from boxel.evaluation import coco_ap
from boxel.evaluation.run import predict_dataset
from boxel.models.io import load

SETS = (
    "butterflies",
    "cwfid",
    "droplets",
    "neu_seg",
    "pigs",
    "sat_buildings",
    "surgical_tools",
    "teeth_xray",
    "tshirts",
)

SETTINGS = {"class_agnostic": True, "data.val_share": 0.0, "data.workers": 0, "device": "cpu"}
NO_MASKS = {"data.mask_classes": []}
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "masks": ("boxinst", "coco-small", {}),
    "boxes": ("boxinst", "coco-small", NO_MASKS | {"hints": "boxcaseg"}),
    "boxes, masks of `boxel label`": ("boxinst", "coco-small", NO_MASKS | {"label": "boxcaseg"}),
    "boxes, hints of GrabCut": ("boxinst", "coco-small", NO_MASKS | {"hints": "grabcut-ellipse"}),
    "boxes alone": ("boxinst", "coco-small", NO_MASKS | {"model.hint_weight": 0.0}),
    "boxes, 10 % with masks": ("boxinst", "coco-small", {"hints": "boxcaseg"}),
    "Mask R-CNN, masks": ("mask-rcnn", "mask-rcnn-small", {}),
    "Mask R-CNN, boxes": ("mask-rcnn", "mask-rcnn-small", NO_MASKS | {"label": "boxcaseg"}),
    "Mask R-CNN, boxes alone": ("mask-rcnn", "mask-rcnn-small", NO_MASKS | {"model.mask_loss": "mil"}),
}
"""Method, recipe and settings of each kind of run."""

BASES = ("masks", "Mask R-CNN, masks")

SHARE = 0.1
"""Share of the masks of `10 % with masks`."""

NOTE = (
    "Mask AP on other images of the same kind, all classes as one, after as many steps from the same start."
)
COLUMNS = ["images", "learned from", "seed", "mask AP", "AP50", "AP75", "box AP"]


def main() -> None:
    """Train what is missing, and record the runs and what remains on average."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/retention"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--kinds", nargs="+", choices=[*RUNS], default=[*RUNS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--init", help="what each run starts from; by default the recipe's weights")
    parser.add_argument("--again", action="store_true", help="make runs again that the table has")
    args = parser.parse_args()
    rows = {} if args.again else read_rows()
    wanted = [(name, kind, seed) for seed in args.seeds for name in args.sets for kind in args.kinds]
    table = Table("retention", "runs", COLUMNS[1:], first=COLUMNS[0], title="Runs", note=NOTE)
    for name, kind, seed in wanted:
        key = (KINDS[name], kind, seed)
        if key not in rows:
            rows[key] = train_and_measure(args, name, kind, seed)
    for key in sorted(rows):
        table.add(*key, *rows[key])
    table.write(sorted({seed for _, _, seed in rows}))
    summarize(rows)


def read_rows() -> dict[tuple[str, str, int], list[float]]:
    """Read the runs that the table has."""
    file = RESULTS / "retention.json"
    tables = json.loads(file.read_text())["tables"] if file.exists() else {}
    return {(row[0], row[1], row[2]): row[3:] for row in tables.get("runs", {}).get("rows", [])}


def train_and_measure(args: Any, name: str, kind: str, seed: int) -> list[float]:
    """Train a run unless its folder is finished; return its AP on the images of `val`."""
    method, recipe, settings = RUNS[kind]
    training = read_domain(args.data, name, "train")
    if "10 %" in kind:
        training = keep_share(training, seed)
    out = args.out / f"{name}_{[*RUNS].index(kind)}_{seed}"
    options = SETTINGS | settings | {"config": recipe, "steps": args.steps, "seed": seed}
    train_once(method, training, out, init=args.init, **options)
    truth = read_domain(args.data, name).class_agnostic()
    results = predict_dataset(load(out), truth, batch_size=4)
    masks, boxes = coco_ap(truth, results, "segm"), coco_ap(truth, results, "bbox")
    return [masks["AP"], masks["AP50"], masks["AP75"], boxes["AP"]]


def keep_share(data: Annotations, seed: int) -> Annotations:
    """Keep the masks of a share of the instances, at least one."""
    known = np.flatnonzero(data.has_mask & ~data.iscrowd)
    kept = np.random.default_rng(seed).permutation(known)[: max(round(SHARE * len(known)), 1)]
    return data.keep_masks(kept)


def summarize(rows: dict[tuple[str, str, int], list[float]]) -> None:
    """Record per kind of images the mask AP from masks, and the shares of it that remain, paired by seed."""
    kinds = [kind for kind in RUNS if any(key[1] == kind for key in rows)]
    others = [kind for kind in kinds if kind not in BASES]
    title, note = "What remains", "Mask AP from masks, and shares of it, paired by seed."
    table = Table("retention", "retention", ["from masks", *others], first="images", title=title, note=note)
    shares: dict[str, list[float]] = {kind: [] for kind in others}
    for name in sorted({key[0] for key in rows}):
        cells = []
        for kind in others:
            base = BASES[kind.startswith("Mask R-CNN")]
            seeds = [seed for *one, seed in rows if one == [name, kind]]
            found = {
                seed: (rows[name, kind, seed][0], rows.get((name, base, seed), [0])[0]) for seed in seeds
            }
            pairs = [own / true for own, true in found.values() if true > 0]
            cells.append(spread(pairs) if pairs else None)
            shares[kind] += [statistics.fmean(pairs)] if pairs else []
        true = [rows[key][0] for key in rows if key[:2] == (name, "masks")]
        table.add(name, spread(true) if true else None, *cells)
    table.add("mean", None, *(statistics.fmean(own) if own else None for own in shares.values()))
    table.write(sorted({key[2] for key in rows}))


if __name__ == "__main__":
    main()

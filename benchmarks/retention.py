"""How much of a segmenter's accuracy remains if it learns from boxes, on many kinds of images?

    python benchmarks/retention.py
    python benchmarks/retention.py --sets pigs droplets --kinds "BoxInst, masks" "BoxInst, boxes" --seeds 0 1 2

Each run learns from `domains/measure/NAME/train.json` or from the persons of COCO images, all classes as one, and is
measured on other images of the same kind: instance segmenters by mask AP, semantic ones by the IoU of the objects.
Mask R-CNN, FCRN, BoxSup and "BoxInst from ImageNet" start with features of ImageNet; BoxInst starts from the bundled
detector, as it does for users, which has learned from masks that `boxcaseg` made for other images.

Runs that the tables have are not made again, so that they can grow in parts; `--again` makes them again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _record import RESULTS, Table, arguments, spread
from _runs import read_coco, row_folder, train_once
from domains import KINDS, read_domain

from boxel.data import Annotations
from boxel.evaluation import coco_ap
from boxel.evaluation.run import predict_dataset
from boxel.evaluation.semantic import measure_segmenter
from boxel.models.io import load

PERSONS = "persons"
SETS = {
    name: KINDS[name]
    for name in (
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
} | {PERSONS: "persons in COCO images"}


@dataclass(frozen=True)
class Kind:
    """What a run learns from, and how.

    Attributes:
        method: Of `boxel train`.
        recipe: The settings that it changes.
        settings: The changes; `steps` among them override `--steps`.
        base: The kind of run that learns from all masks, in whose share the result is given; None for that run itself.
        share: Share of the instances that keep their masks.
    """

    method: str
    recipe: str
    settings: dict[str, Any] = field(default_factory=dict)
    base: str | None = None
    share: float = 0.0

    @property
    def semantic(self) -> bool:
        """Whether it gives each pixel a class."""
        return self.method in ("boxsup", "fcrn")


HINTS = {"hints": "boxcaseg"}
LABELS = {"label": "boxcaseg"}
MORE = {"steps": 300}
"""A detector that starts with features of ImageNet needs more steps than one that finds objects already."""
IMAGENET = {"model.backbone": "tf_efficientnet_lite0"} | MORE
"""Starts with features of ImageNet instead of the bundled detector, which has learned from masks of `boxcaseg`."""
SHARES = (0.01, 0.05, 0.1, 0.5)
RUNS = {
    "BoxInst, masks": Kind("boxinst", "boxinst-small"),
    "BoxInst, boxes": Kind("boxinst", "boxinst-small", HINTS, "BoxInst, masks"),
    "BoxInst, boxes alone": Kind("boxinst", "boxinst-small", {"model.hint_weight": 0.0}, "BoxInst, masks"),
    "BoxInst, boxes, masks of `boxel label`": Kind("boxinst", "boxinst-small", LABELS, "BoxInst, masks"),
    "BoxInst, boxes, hints of `boxcaseg-boxes`": Kind(
        "boxinst", "boxinst-small", {"hints": "boxcaseg-boxes"}, "BoxInst, masks"
    ),
    "BoxInst, boxes, hints of GrabCut": Kind(
        "boxinst", "boxinst-small", {"hints": "grabcut-ellipse"}, "BoxInst, masks"
    ),
    **{
        f"BoxInst, boxes, {share:.0%} with masks": Kind(
            "boxinst", "boxinst-small", HINTS, "BoxInst, masks", share
        )
        for share in SHARES
    },
    "BoxInst from ImageNet, masks": Kind("boxinst", "boxinst-small", IMAGENET),
    "BoxInst from ImageNet, boxes": Kind(
        "boxinst", "boxinst-small", IMAGENET | HINTS, "BoxInst from ImageNet, masks"
    ),
    "BoxInst from ImageNet, boxes alone": Kind(
        "boxinst", "boxinst-small", IMAGENET | {"model.hint_weight": 0.0}, "BoxInst from ImageNet, masks"
    ),
    "BoxInst from ImageNet, boxes, 10% with masks": Kind(
        "boxinst", "boxinst-small", IMAGENET | HINTS, "BoxInst from ImageNet, masks", 0.1
    ),
    "Mask R-CNN, masks": Kind("mask-rcnn", "mask-rcnn-small", MORE),
    "Mask R-CNN, boxes": Kind("mask-rcnn", "mask-rcnn-small", LABELS | MORE, "Mask R-CNN, masks"),
    "Mask R-CNN, boxes alone": Kind(  # BBTP
        "mask-rcnn", "mask-rcnn-small", {"model.mask_loss": "mil"} | MORE, "Mask R-CNN, masks"
    ),
    "Mask R-CNN, boxes, 10% with masks": Kind(
        "mask-rcnn", "mask-rcnn-small", LABELS | MORE, "Mask R-CNN, masks", 0.1
    ),
    "FCRN, masks": Kind("fcrn", "fcrn-coco-small"),
    "FCRN, boxes": Kind("fcrn", "fcrn-coco-small", LABELS, "FCRN, masks"),
    "FCRN, boxes, 10% with masks": Kind("fcrn", "fcrn-coco-small", LABELS, "FCRN, masks", 0.1),
    "BoxSup, masks": Kind("boxsup", "boxsup-small", LABELS),  # none is missing
    "BoxSup, boxes": Kind("boxsup", "boxsup-small", LABELS, "BoxSup, masks"),
    "BoxSup, boxes alone": Kind("boxsup", "boxsup-small", {"label": "segments"}, "BoxSup, masks"),
    "BoxSup, boxes, 10% with masks": Kind("boxsup", "boxsup-small", LABELS, "BoxSup, masks", 0.1),
}

SETTINGS = {"class_agnostic": True, "data.val_share": 0.0, "data.workers": 0, "device": "cpu"}

INSTANCES = ["mask AP", "AP50", "AP75", "box AP"]
PIXELS = ["IoU of the objects", "mean IoU"]
RUNS_OF = {False: "Runs of instance segmenters", True: "Runs of semantic segmenters"}
SEEN = (
    " `boxcaseg` has learned from the masks of COCO's training images, which may flatter persons from its masks; "
    "`boxcaseg-boxes` has not. The other kinds of images are new to both."
)
NOTES = {
    False: "Mask AP on other images of the same kind, all classes as one; the runs of a method start from the same "
    "weights and learn as long. From boxes: with masks of `boxcaseg`. From boxes alone: BoxInst by projection and "
    "affinity, Mask R-CNN by multiple instance learning (BBTP). Cells without a standard deviation have one seed, 0."
    + SEEN,
    True: "IoU of the pixels of objects, whatever their class, on other images of the same kind; the runs of a method "
    "start from the same weights and learn as long. From boxes: with masks of `boxcaseg`. From boxes alone: BoxSup by "
    "its segments." + SEEN,
}
Rows = dict[tuple[str, str, int], list[float]]


def main() -> None:
    """Train what is missing, and record the runs and what remains on average."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/retention"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--kinds", nargs="+", choices=RUNS, default=[*RUNS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=120, help="of each instance segmenter")
    parser.add_argument("--semantic-steps", type=int, default=200, help="of each semantic segmenter")
    parser.add_argument("--again", action="store_true", help="make runs again that the tables have")
    args = parser.parse_args()
    for semantic in (False, True):
        rows: Rows = {} if args.again else read_rows(semantic)
        kinds = [kind for kind in args.kinds if RUNS[kind].semantic == semantic]
        for seed in args.seeds:
            for name in args.sets:
                for kind in kinds:
                    if (SETS[name], kind, seed) not in rows:
                        rows[SETS[name], kind, seed] = train_and_measure(args, name, kind, seed)
                        print(name, kind, seed, rows[SETS[name], kind, seed], flush=True)
            if rows:
                record(rows, semantic)


def read_rows(semantic: bool) -> Rows:
    """Read the runs that the table has."""
    file = RESULTS / "retention.json"
    tables = json.loads(file.read_text())["tables"] if file.exists() else {}
    rows = tables.get("pixel-runs" if semantic else "runs", {}).get("rows", [])
    return {(row[0], row[1], row[2]): row[3:] for row in rows}


def train_and_measure(args: Any, name: str, kind: str, seed: int) -> list[float]:
    """Train a run unless its folder is finished; return its accuracy on other images."""
    run = RUNS[kind]
    training, truth = read_set(args.data, name)
    if run.base is not None:
        training = keep_share(training, run.share, seed)
    out = row_folder(args.out, f"{name}, {kind}".replace("%", ""), seed)
    steps = args.semantic_steps if run.semantic else args.steps
    options = SETTINGS | {"config": run.recipe, "steps": steps, "seed": seed} | run.settings
    train_once(run.method, training, out, **options)
    truth, model = truth.class_agnostic(), load(out)
    if run.semantic:
        metrics = measure_segmenter(truth, model)
        return [metrics["per_class"]["object"], metrics["mean_iou"]]
    results = predict_dataset(model, truth, batch_size=4)
    masks, boxes = coco_ap(truth, results, "segm"), coco_ap(truth, results, "bbox")
    return [masks["AP"], masks["AP50"], masks["AP75"], boxes["AP"]]


def arguments_of_runs(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a script that measures the runs of one seed."""
    parser = arguments(description, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/retention"), help="folder of the trainings")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=120, help="of each detector")
    return parser


def trained_runs(args: Any, kind: str) -> Iterator[tuple[str, Path, Annotations, Annotations]]:
    """Yield for each set its kind of images, the folder of its run, what it learned from and what to measure on.

    What is missing is trained first. The dataset learned from has all masks.
    """
    for name in args.sets:
        folder = row_folder(args.out, f"{name}, {kind}", args.seed)
        if not (folder / "model.safetensors").exists():
            train_and_measure(args, name, kind, args.seed)
        yield SETS[name], folder, *read_set(args.data, name)


def read_set(data: Path, name: str) -> tuple[Annotations, Annotations]:
    """Read what to learn from and what to measure on."""
    if name != PERSONS:
        return read_domain(data, name, "train"), read_domain(data, name)
    train, val = (
        read_coco(data, part).select_categories(["person"]) for part in ("train_masks", "val_masks")
    )
    return train, val


def keep_share(data: Annotations, share: float, seed: int) -> Annotations:
    """Keep the masks of a share of the instances, at least one unless it is 0."""
    known = np.flatnonzero(data.has_mask & ~data.iscrowd)
    count = max(round(share * len(known)), 1) if share else 0
    kept = np.random.default_rng(seed).permutation(known)[:count]
    return data.keep_masks(kept)


def record(rows: Rows, semantic: bool) -> None:
    """Record the runs, and per kind of images the accuracy from masks and the shares of it that remain."""
    columns, prefix = (PIXELS, "pixel-") if semantic else (INSTANCES, "")
    seeds = sorted({seed for *_, seed in rows})
    table = Table(
        "retention",
        f"{prefix}runs",
        ["learned from", "seed", *columns],
        first="images",
        title=RUNS_OF[semantic],
    )
    for key in sorted(rows):
        table.add(*key, *rows[key])
    table.write(seeds, whole_command(seeds))
    for base in (kind for kind, run in RUNS.items() if run.base is None and run.semantic == semantic):
        summarize(rows, base, NOTES[semantic])


def summarize(rows: Rows, base: str, note: str) -> None:
    """Record per kind of images the accuracy of a method from masks, and the shares of it that remain, by seed."""
    others = [kind for kind, run in RUNS.items() if run.base == base and any(key[1] == kind for key in rows)]
    method = base.removesuffix(", masks")
    if not others or not any(key[1] == base for key in rows):
        return
    title = f"{method}: what remains of the accuracy from masks"
    name = method.lower().replace(" ", "-")
    shown = [kind.removeprefix(f"{method}, ") for kind in others]
    table = Table("retention", name, ["masks", *shown], first="images", title=title, note=note)
    means: dict[str, list[float]] = {kind: [] for kind in others}
    for images in sorted({key[0] for key in rows}):
        true = {seed: row[0] for (one, kind, seed), row in rows.items() if (one, kind) == (images, base)}
        cells = []
        for kind in others:
            shares = [
                rows[images, kind, seed][0] / value
                for seed, value in true.items()
                if (images, kind, seed) in rows and value > 0
            ]
            cells.append(spread(shares) if shares else None)
            means[kind] += [statistics.fmean(shares)] if shares else []
        if true:
            table.add(images, spread([*true.values()]), *cells)
    complete = max(map(len, means.values()))  # a mean of some kinds of images alone would mislead
    table.add(
        "mean", None, *(statistics.fmean(own) if len(own) == complete else None for own in means.values())
    )
    seeds = sorted({seed for _, kind, seed in rows if kind in (base, *others)})
    table.write(seeds, whole_command(seeds))


def whole_command(seeds: list[int]) -> str:
    """Return the command that makes all runs of the tables, which grow in parts."""
    return shlex.join(["python", "benchmarks/retention.py", "--seeds", *map(str, seeds)])


if __name__ == "__main__":
    main()

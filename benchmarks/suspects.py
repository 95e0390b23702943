"""How many of the boxes that are wrong does `boxel label` list, and how many of the listed boxes are wrong?

    python benchmarks/suspects.py --fit runs/part0 runs/part1
    python benchmarks/suspects.py

A share of the true boxes is spoiled: moved to the background, united with a neighbor of the same class, or grown two to
three times. `--fit` fits the bundled scores with networks that are trained without a part of the images each, on these
images (see `teach.py`); without it, the boxes of each `domains/measure/NAME/val.json` are labeled, at most --instances.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _record import REPO, Table, arguments
from domains import KINDS, first_images, read_domain
from teach import read_left_out

import boxel
from boxel.data import Annotations
from boxel.data.suspects import SUSPECTS, find_suspects
from boxel.labeling.config import LabelConfig
from boxel.labeling.fusion import label_image
from boxel.labeling.quality import CUES, compute_cues
from boxel.labeling.shard import load_image
from boxel.labeling.suspects import MIN_SIDE, standardize
from boxel.labeling.teachers import make_teacher
from boxel.masks.boxes import box_iou

OUT = REPO / "src" / "boxel" / "weights" / "suspects"
FITTED = ("empty", "far too loose")
STRENGTH = 0.005  # of the ridge on the weights, per box


@dataclass
class Spoiled:
    """A dataset of which some boxes are wrong, and (N,) what is wrong with each; empty for a true box."""

    data: Annotations
    kinds: np.ndarray


def main() -> None:
    """Fit the scores, or record what the list is worth on each dataset and in total."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--teacher", default="boxcaseg")
    parser.add_argument("--share", type=float, default=0.2, help="of the boxes that are spoiled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--instances", type=int, default=150, help="of each dataset at most")
    parser.add_argument(
        "--fit", type=Path, nargs="+", metavar="PART", help="write the scores; networks of parts"
    )
    parser.add_argument("--false-alarms", type=float, default=0.006, help="of the true boxes, for each kind")
    args = parser.parse_args()
    if args.fit:
        fit(args)
    else:
        measure(args)


def measure(args: argparse.Namespace) -> None:
    """Record a row per dataset and their sum: the boxes listed of each kind, and how much of the list is wrong."""
    columns = ["true boxes listed", *(f"{kind}: listed" for kind in SUSPECTS), "precision", "named rightly"]
    note = "Listed boxes of all boxes of the kind; `precision` is the share of the listed boxes that were spoiled."
    table = Table("domains", "suspects", columns, first="images", title="Boxes that look wrong", note=note)
    parts = []
    for name, kind in KINDS.items():
        spoiled = spoil(first_images(read_domain(args.data, name), args.instances), args.share, args.seed)
        marked = find_suspects(boxel.label(spoiled.data, teacher=args.teacher))
        listed = np.full(len(spoiled.kinds), "", dtype=object)
        for suspect, rows in marked.items():
            listed[rows] = suspect
        parts.append((spoiled.kinds, listed))
        table.add(kind, *describe(spoiled.kinds, listed))
    table.add("all", *describe(*map(np.concatenate, zip(*parts, strict=True))))
    table.write(seeds=[args.seed])


def describe(kinds: np.ndarray, listed: np.ndarray) -> list[object]:
    """Return the cells of a row."""
    counts = [f"{(listed[kinds == kind] != '').sum()} of {(kinds == kind).sum()}" for kind in ("", *SUSPECTS)]
    found = listed != ""
    shares = (
        [(kinds[found] != "").mean(), (kinds[found] == listed[found]).mean()] if found.any() else [None] * 2
    )
    return [*counts, *shares]


def spoil(data: Annotations, share: float, seed: int) -> Spoiled:
    """Make a share of the boxes wrong, each in one of three ways if its image allows it."""
    rng = np.random.default_rng(seed)
    data = data.select_instances(data.has_box & ~data.iscrowd).without_masks()
    kinds = np.full(len(data.ids), "", dtype=object)
    boxes, kept = data.boxes.copy(), np.ones(len(data.ids), dtype=bool)
    for image in range(len(data)):
        own = data.instances_in(image)
        size = np.array(data.image_size(image), dtype=np.float64)
        boxes[own] = given = data.boxes[own].clip(0, np.tile(size, 2))
        large = (given[:, 2:] - given[:, :2]).min(axis=1) >= MIN_SIDE
        for k, row in enumerate(own.tolist()):
            if not large[k] or kinds[row] or not kept[row] or rng.random() > share:
                continue
            kind = SUSPECTS[rng.integers(3)]
            if kind == "empty":
                box = move_away(given, k, size, rng)
            elif kind == "far too loose":
                box = grow(given[k], size, rng)
            else:
                free = large & kept[own] & (kinds[own] == "") & (data.labels[own] == data.labels[row])
                box, other = unite(given, k, free)
                if box is not None:
                    kept[own[other]] = False
            if box is not None:
                boxes[row], kinds[row] = box, kind
    return Spoiled(replace(data, boxes=boxes).select_instances(kept), kinds[kept])


def move_away(boxes: np.ndarray, k: int, size: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Move a box to where no box covers more than 2 % of it."""
    sides = boxes[k, 2:] - boxes[k, :2]
    for _ in range(50):
        corner = rng.uniform(0, np.maximum(size - sides, 0))
        moved = np.concatenate([corner, corner + sides])
        shared = (np.minimum(moved[2:], boxes[:, 2:]) - np.maximum(moved[:2], boxes[:, :2])).clip(min=0)
        if shared.prod(axis=1).max() < 0.02 * sides.prod() and (sides < size).all():
            return moved
    return None


def grow(box: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """Make a box two to three times as wide and high around its object; None if the image leaves no room for that."""
    sides = rng.uniform(2, 3) * (box[2:] - box[:2])
    corner = rng.uniform(box[2:] - sides, box[:2])
    grown = np.concatenate([corner, corner + sides]).clip(0, np.tile(size, 2))
    return grown if box_iou(grown[None], box[None])[0, 0] < 0.4 else None


def unite(boxes: np.ndarray, k: int, free: np.ndarray) -> tuple[np.ndarray | None, int]:
    """Return the smallest box of two objects that lie side by side, and the other object."""
    best, other = None, -1
    for j in np.flatnonzero(free).tolist():
        pair = boxes[[k, j]]
        union = np.concatenate([pair[:, :2].min(axis=0), pair[:, 2:].max(axis=0)])
        shares = box_iou(union[None], pair)[0]
        apart = box_iou(pair[:1], pair[1:])[0, 0] < 0.2
        if j == k or not apart or shares.max() >= 0.7 or shares.sum() <= 0.4:
            continue
        if best is None or np.prod(union[2:] - union[:2]) < np.prod(best[2:] - best[:2]):
            best, other = union, j
    return best, other


def fit(args: argparse.Namespace) -> None:
    """Fit a logistic regression per kind, and write the scores so that few true boxes are above zero."""
    found = [
        collect(data, network.as_posix(), args)
        for part, network in enumerate(args.fit)
        for data in read_left_out(args.data, part).values()
    ]
    cues, kinds = (np.concatenate(parts) for parts in zip(*found, strict=True))
    mean, scale = cues.mean(axis=0), cues.std(axis=0).clip(min=1e-3)
    terms, true = standardize(cues, mean, scale), kinds == ""
    content: dict[str, object] = {name: named(values) for name, values in (("mean", mean), ("scale", scale))}
    content["weights"] = weights = {}
    for kind in FITTED:
        some = true | (kinds == kind)
        fitted = fit_logistic(terms[some], ~true[some])
        fitted[0] -= np.quantile(terms[true] @ fitted, 1 - args.false_alarms)
        weights[kind] = {"constant": round(float(fitted[0]), 6)} | named(fitted[1:])
        print(f"{kind}: {(terms[kinds == kind] @ fitted > 0).mean():.2f} of {(kinds == kind).sum()}")
    OUT.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1)
    (OUT / f"{args.teacher}.json").write_text(text + "\n", encoding="utf-8")


def collect(data: Annotations, teacher: str, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Return the cues of the boxes of a spoiled dataset that are judged, and what is wrong with each."""
    config, network = LabelConfig(), make_teacher(teacher, data.categories)
    spoiled = spoil(data, args.share, args.seed)
    data = spoiled.data

    def judge(image: int) -> tuple[np.ndarray, np.ndarray]:
        own = data.instances_in(image)
        boxes, pixels = data.boxes[own], load_image(data, image)
        cues = compute_cues(label_image(pixels, boxes, data.labels[own], [network], config))
        judged = ((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= MIN_SIDE) & np.isfinite(cues).all(axis=1)
        return cues[judged], spoiled.kinds[own][judged]

    with ThreadPoolExecutor(config.workers) as pool:
        cues, kinds = zip(*pool.map(judge, np.unique(data.image_index).tolist()), strict=True)
    return np.concatenate(cues), np.concatenate(kinds)


def fit_logistic(terms: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Fit a logistic regression with a ridge by Newton's method."""
    weights = np.zeros(terms.shape[1])
    penalty = STRENGTH * len(terms) * np.eye(terms.shape[1])
    penalty[0, 0] = 0
    for _ in range(30):
        probability = 1 / (1 + np.exp(-terms @ weights))
        curvature = (terms * (probability * (1 - probability) + 1e-6)[:, None]).T @ terms
        slope = terms.T @ (targets - probability) - penalty @ weights
        weights += np.linalg.solve(curvature + penalty, slope)
    return weights


def named(values: np.ndarray) -> dict[str, float]:
    """Return a number per cue."""
    return {cue: round(float(value), 6) for cue, value in zip(CUES, values, strict=True)}


if __name__ == "__main__":
    main()

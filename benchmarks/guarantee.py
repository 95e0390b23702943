"""How often does the guarantee of `boxel label --guarantee` hold, and how many masks does it cover?

    python benchmarks/guarantee.py

At most --instances boxes of each `domains/measure/NAME/val.json` and all of `coco/val` are labeled once. For each of
--splits random splits some of the masks play the true ones; the quality is calibrated on them, and the threshold that
they give is applied to the others, whose IoU with the true masks shows whether the promise holds.
"""

from __future__ import annotations

import argparse

import numpy as np
from _record import Table, arguments
from _runs import read_coco
from domains import KINDS, first_images, read_domain

from boxel.data import Annotations
from boxel.labeling.calibration import (
    MIN_MASKS_TO_FIT,
    collect_cues,
    estimate_left_out,
    fit_or_correct,
)
from boxel.labeling.config import LabelConfig
from boxel.labeling.guarantee import MIN_SHARE, find_threshold
from boxel.labeling.quality import Calibration, find_calibration
from boxel.labeling.teachers import make_teacher

COUNTS = (30, 50, 100, 300)
MAX_SHARE = 0.6  # of the masks that play the true ones


def main() -> None:
    """Record a row per kind of images, IoU and number of true masks."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--instances", type=int, default=60, help="of each dataset at most")
    parser.add_argument("--ious", type=float, nargs="+", default=[0.5, 0.7, 0.8])
    args = parser.parse_args()
    columns = ["true masks", "reach the IoU", "holds", "any guaranteed", "guaranteed", "attainable"]
    title = "The guarantee of `boxel label --guarantee`"
    note = (
        "`reach the IoU` is the share of all masks that do. `holds` is the share of random splits in which at least "
        "90 % of the guaranteed masks, none of which is among the true ones, reach the IoU, or nothing is promised "
        "(goal: 0.93 or more; promised: 0.95). `any guaranteed` is the share of splits with a guarantee at all, "
        "`guaranteed` the mean share of the masks that nobody checked that it covers, and `attainable` the share that "
        "could be covered if the IoU of all of them were known."
    )
    table = Table("guarantee", "simulation", columns, first="images, IoU", title=title, note=note)
    prior = find_calibration("boxcaseg")
    for name, (cues, ious) in collect(args).items():
        for iou in args.ious:
            for count in COUNTS:
                if count <= MAX_SHARE * len(ious) and prior is not None:
                    splits = [simulate(cues, ious, iou, count, prior, seed) for seed in range(args.splits)]
                    label = f"{name}, {iou:g}"
                    table.add(label, count, (ious >= iou).mean(), *map(float, np.mean(splits, axis=0)))
    table.write(seeds=[0])


def collect(args: argparse.Namespace) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the cues and the true IoU of the masks of everyday photos, and of images of 16 other kinds together."""
    parts = []
    for name in KINDS:
        parts.append(collect_from(first_images(read_domain(args.data, name), args.instances)))
    cues, ious = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    photos = collect_from(read_coco(args.data, "val_masks"))
    return {"everyday photos": photos, "16 other kinds": (cues, ious)}


def collect_from(truth: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """Return the cues of the bundled network's masks of a dataset, and their true IoU."""
    return collect_cues(truth, [make_teacher("boxcaseg")], LabelConfig(workers=1))


def simulate(
    cues: np.ndarray, ious: np.ndarray, iou: float, count: int, prior: Calibration, seed: int
) -> tuple[bool, bool, float, float]:
    """Return whether the guarantee by some true masks holds for the others, and whether there is any.

    Also return the share of the others that it covers, and the largest share that it might.
    """
    order = np.random.default_rng(seed).permutation(len(ious))
    true, others = order[:count], order[count:]
    known = None if count >= MIN_MASKS_TO_FIT else prior
    quality = fit_or_correct(cues[true], ious[true], known).estimate(cues[others])
    left_out = estimate_left_out(cues[true], ious[true], known)
    threshold = find_threshold(left_out, ious[true], iou, quality)
    reached, covered = ious[others] >= iou, quality >= threshold
    shares = reached[np.argsort(-quality)].cumsum() / np.arange(1, len(others) + 1)
    attainable = 1 + np.flatnonzero(shares >= MIN_SHARE).max(initial=-1)
    holds = not covered.any() or bool(reached[covered].mean() >= MIN_SHARE)
    return holds, bool(covered.any()), covered.mean(), attainable / len(others)


if __name__ == "__main__":
    main()

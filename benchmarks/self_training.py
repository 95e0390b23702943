"""Does a detector that learned from boxes make better masks of its own training images than its teacher made?

    python benchmarks/self_training.py --out runs/retention

A run `BoxInst, boxes` of `retention.py` learned from masks that `boxcaseg` made. Here the detector makes masks of the
same boxes. A round of self-training would learn from the masks with the better estimated quality, so it can gain what
these are better by. How well the detector agrees with its
teacher shows whether it has memorized the teacher's errors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _record import Table
from retention import arguments_of_runs, trained_runs

import boxel
from boxel.data import Annotations
from boxel.evaluation.boxes import instance_ious

KIND = "BoxInst, boxes"
COLUMNS = ["`boxcaseg`", "the detector", "better estimated quality", "better IoU", "detector with `boxcaseg`"]
NOTE = (
    "Mean IoU with the true masks, which no training has seen: of the masks of `boxcaseg`, of those of the detector "
    "that learned from them, and of one of the two for each box. Last, the mean IoU of the detector's masks with those "
    "of `boxcaseg`."
)


def main() -> None:
    """Record a row per kind of images."""
    args = arguments_of_runs(__doc__).parse_args()
    table = Table(
        "boxinst", "self-training", COLUMNS, "training images", "What self-training could gain", NOTE
    )
    for images, run, training, _ in trained_runs(args, KIND):
        table.add(images, *compare(training.class_agnostic(), run))
    table.write([args.seed])


def compare(training: Annotations, run: Path) -> list[float]:
    """Return the mean IoU of both kinds of masks, of both choices, and of the detector's masks with its teacher's."""
    hints, own = (
        boxel.label(training.without_masks(), teacher=teacher) for teacher in ("boxcaseg", str(run))
    )
    ious = [instance_ious(training, made, min_side=0)[0] for made in (hints, own)]
    known = np.flatnonzero(training.has_mask & ~training.iscrowd)
    chosen = np.where(quality(own)[known] > quality(hints)[known], ious[1], ious[0])
    agreement = instance_ious(hints, own, min_side=0)[0]
    return [float(values.mean()) for values in (*ious, chosen, np.maximum(*ious), agreement)]


def quality(made: Annotations) -> np.ndarray:
    """Return (N,) the estimated IoU of each mask, 0 if there is none."""
    return np.where(made.has_mask, made.quality, 0)


if __name__ == "__main__":
    main()

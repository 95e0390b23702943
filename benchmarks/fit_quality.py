"""Fit the calibrations of quality that come with boxel, on masks that the teachers have not learned from.

    python benchmarks/fit_quality.py ../shared/data/coco/train_masks.json --images ../shared/data/coco/images \
        --teachers rectangle ellipse grabcut-ellipse

Of teachers that learn nothing any masks will do; those named here are of that kind. A network must not have learned
from the masks it is calibrated on, so `boxcaseg.json` is not made by this command: see the card beside its weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from boxel.data import read
from boxel.evaluation.ranking import ranking_figures
from boxel.labeling.calibrate import collect
from boxel.labeling.config import LabelConfig
from boxel.labeling.quality import fit, write
from boxel.labeling.teachers import make_teacher

OUT = Path(__file__).resolve().parents[1] / "src" / "boxel" / "weights" / "quality"


def main() -> None:
    """Write a calibration a teacher, and print what it is worth on folds left out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="annotations with masks")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--teachers", nargs="+", default=["rectangle", "ellipse", "grabcut-ellipse"])
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()

    data = read(args.data, images=args.images)
    args.out.mkdir(parents=True, exist_ok=True)
    print("| teacher | masks | spearman | calibration error | gain |\n|---|---|---|---|---|")
    for name in args.teachers:
        found, ious = collect(data, [make_teacher(name, data.categories)], LabelConfig(teachers=[name]))
        write(fit(found, ious), args.out / f"{name}.json")
        row = ranking_figures(left_out(found, ious), ious)
        print(
            f"| {name} | {len(ious)} | {' | '.join(f'{value:.3f}' for value in row.values())} |", flush=True
        )


def left_out(found: np.ndarray, ious: np.ndarray, folds: int = 5) -> np.ndarray:
    """(N,) quality of each mask as told by a calibration of the other folds."""
    order = np.random.default_rng(0).permutation(len(ious))
    quality = np.zeros(len(ious))
    for fold in range(folds):
        here = order[fold::folds]
        rest = np.setdiff1d(order, here)
        quality[here] = fit(found[rest], ious[rest]).of_cues(found[here])
    return quality


if __name__ == "__main__":
    main()

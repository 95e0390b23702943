"""Fit the bundled calibrations of quality, on masks that the teachers have not learned from.

    python benchmarks/fit_quality.py --teachers rectangle ellipse grabcut-ellipse boxcaseg-boxes

Teachers that learn nothing can be calibrated on any masks, and so can `boxcaseg-boxes`, which has seen no masks of
these images. A network that has seen them is calibrated out of fold: for each part of the images a network like it is
trained on the other parts, for fewer steps, and the cues are those of its masks.

    python benchmarks/fit_quality.py --teachers boxcaseg --recipe boxcaseg-small-masks
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from _record import Table, arguments
from _runs import read_coco, train_once

from boxel.data import Annotations
from boxel.evaluation.boxes import quality_metrics
from boxel.labeling.calibration import collect_cues
from boxel.labeling.config import LabelConfig
from boxel.labeling.quality import fit_calibration, save_calibration
from boxel.labeling.teachers import make_teacher

OUT = Path(__file__).resolve().parents[1] / "src" / "boxel" / "weights" / "quality"


def main() -> None:
    """Write a calibration per teacher, and print what it is worth on folds left out."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--teachers", nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--recipe", help="train networks by it, each on all images but a part")
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--runs", type=Path, default=Path("runs/folds"), help="where they are kept")
    args = parser.parse_args()
    if args.recipe and len(args.teachers) > 1:
        parser.error("--recipe is of one teacher; name that one with --teachers.")

    data = read_coco(args.data, "train_masks")
    args.out.mkdir(parents=True, exist_ok=True)
    columns = ["masks", "spearman", "calibration error", "gain"]
    table = Table("label-quality", "calibration", columns, first="teacher", title="Calibration, out of fold")
    for name in args.teachers:
        found, ious = out_of_fold(data, args) if args.recipe else cues_of_teacher(data, name)
        save_calibration(fit_calibration(found, ious), args.out / f"{name}.json")
        row = quality_metrics(ious, left_out(found, ious))
        table.add(name, len(ious), *row.values())
    table.write(seeds=[0])


def cues_of_teacher(data: Annotations, teacher: str) -> tuple[np.ndarray, np.ndarray]:
    """Cues of a teacher's masks, and their true IoU."""
    return collect_cues(data, [make_teacher(teacher, data.categories)], LabelConfig())


def out_of_fold(data: Annotations, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The same of the masks of networks that have learned from the other images; finished trainings are kept."""
    order = np.random.default_rng(0).permutation(len(data))
    found = []
    for part in range(args.parts):
        run, here = args.runs / str(part), np.sort(order[part :: args.parts])
        train_once(
            "boxcaseg",
            data.select_images(np.setdiff1d(order, here)),
            run,
            salient=args.data / "salient",
            config=args.recipe,
            steps=args.steps,
            ema=0.0,  # an average of weights would hold much of the beginning of so short a training
        )
        found.append(cues_of_teacher(data.select_images(here), run.as_posix()))
    return np.concatenate([cues for cues, _ in found]), np.concatenate([ious for _, ious in found])


def left_out(found: np.ndarray, ious: np.ndarray, folds: int = 5) -> np.ndarray:
    """(N,) quality of each mask by a calibration of the other folds."""
    order = np.random.default_rng(0).permutation(len(ious))
    quality = np.zeros(len(ious))
    for fold in range(folds):
        here = order[fold::folds]
        rest = np.setdiff1d(order, here)
        quality[here] = fit_calibration(found[rest], ious[rest]).estimate(found[here])
    return quality


if __name__ == "__main__":
    main()

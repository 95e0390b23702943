"""Fit the calibrations of quality that come with boxel, on masks that the teachers have not learned from.

    python benchmarks/fit_quality.py ../shared/data/coco/train_masks.json --images ../shared/data/coco/images \
        --teachers rectangle ellipse grabcut-ellipse boxcaseg-boxes

Of teachers that learn nothing any masks will do, and of `boxcaseg-boxes`, which has learned from no masks of these
photos. A network that has is calibrated out of fold: for each part of the photos one like it is trained on the others,
for fewer steps, and the cues are those of its masks.

    python benchmarks/fit_quality.py ../shared/data/coco/train_masks.json --images ../shared/data/coco/images \
        --teachers boxcaseg --recipe recipes/boxcaseg_small_masks.yaml --salient ../shared/data/salient
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from boxel.data import Annotations, read
from boxel.evaluation.ranking import ranking_figures
from boxel.labeling.calibrate import collect
from boxel.labeling.config import LabelConfig
from boxel.labeling.quality import fit, write
from boxel.labeling.teachers import make_teacher
from boxel.training import train

OUT = Path(__file__).resolve().parents[1] / "src" / "boxel" / "weights" / "quality"


def main() -> None:
    """Write a calibration a teacher, and print what it is worth on folds left out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="annotations with masks")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--teachers", nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--recipe", help="train networks by it, each on all photos but a part")
    parser.add_argument("--salient", type=Path, help="salient images to train them on as well")
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--runs", type=Path, default=Path("runs/folds"), help="where they are kept")
    args = parser.parse_args()
    if args.recipe and len(args.teachers) > 1:
        parser.error("--recipe is of one teacher; name that one with --teachers.")

    data = read(args.data, images=args.images)
    args.out.mkdir(parents=True, exist_ok=True)
    print("| teacher | masks | spearman | calibration error | gain |\n|---|---|---|---|---|")
    for name in args.teachers:
        found, ious = out_of_fold(data, args) if args.recipe else cues_of(data, name)
        write(fit(found, ious), args.out / f"{name}.json")
        row = ranking_figures(left_out(found, ious), ious)
        print(
            f"| {name} | {len(ious)} | {' | '.join(f'{value:.3f}' for value in row.values())} |", flush=True
        )


def cues_of(data: Annotations, teacher: str) -> tuple[np.ndarray, np.ndarray]:
    """Cues of a teacher's masks, and their true IoU."""
    return collect(data, [make_teacher(teacher, data.categories)], LabelConfig())


def out_of_fold(data: Annotations, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """The same of the masks of networks that have learned from the other photos; finished trainings are kept."""
    order = np.random.default_rng(0).permutation(len(data))
    found = []
    for part in range(args.parts):
        run, here = args.runs / str(part), np.sort(order[part :: args.parts])
        if not (run / "model.safetensors").exists():
            train(
                "boxcaseg",
                data.select_images(np.setdiff1d(order, here)),
                salient=args.salient,
                out=run,
                config=args.recipe,
                resume=(run / "checkpoints" / "last.ckpt").exists(),
                steps=args.steps,
                ema=0.0,  # an average of weights would hold much of the beginning of so short a training
            )
        found.append(cues_of(data.select_images(here), run.as_posix()))
    return np.concatenate([cues for cues, _ in found]), np.concatenate([ious for _, ious in found])


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

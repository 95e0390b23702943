"""Fit the bundled calibrations of quality, on masks that the teachers have not learned from.

    python benchmarks/fit_quality.py --teachers rectangle ellipse grabcut-ellipse boxcaseg-boxes

Teachers that learn nothing can be calibrated on any masks, and nearly so `boxcaseg-boxes`, which has seen those of the
images of people only. A network that has seen them is calibrated on masks of networks like it, each trained for fewer
steps and without a part of the images, whose kinds it has not seen:

    python benchmarks/teach.py runs/part0 --steps 1000 --part 0
    python benchmarks/teach.py runs/part1 --steps 1000 --part 1
    python benchmarks/fit_quality.py --teachers boxcaseg --parts runs/part0 runs/part1
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from _record import arguments, heading, markdown_row, rounded
from teach import PARTS, read_left_out

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
    parser.add_argument(
        "--parts", type=Path, nargs="+", help="networks trained without a part of the images each"
    )
    args = parser.parse_args()
    if args.parts and len(args.teachers) > 1:
        parser.error("--parts are of one teacher; name that one with --teachers.")

    args.out.mkdir(parents=True, exist_ok=True)
    columns = ["masks", "spearman", "calibration error", "gain"]
    print(heading(["teacher", *columns]), flush=True)
    for name in args.teachers:
        networks = [part.as_posix() for part in args.parts] if args.parts else [name] * PARTS
        found, ious = collect_out_of_fold(networks, args.data)
        save_calibration(fit_calibration(found, ious), args.out / f"{name}.json")
        row = quality_metrics(ious, left_out(found, ious)).values()
        print(markdown_row([name, len(ious), *map(rounded, row)]), flush=True)


def collect_out_of_fold(networks: list[str], data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Cues of masks, and their true IoU: of each network on a part of the images, half of them from loose boxes."""
    found = [
        collect_cues(truth, [make_teacher(network, truth.categories)], LabelConfig())
        for part, network in enumerate(networks)
        for truth in read_left_out(data, part, loose=0.5).values()
    ]
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

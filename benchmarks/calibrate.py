"""How true the quality is on images of many kinds, as it is bundled and after a calibration on 30 true masks.

    python benchmarks/calibrate.py

The masks are drawn at random from `domains/measure/NAME/train.json`, and the quality is measured on `val.json`.
"""

from __future__ import annotations

import numpy as np
from _record import Table, arguments
from adapt import keep_masks
from domains import KINDS, first_images, read_domain
from numpy.typing import NDArray

from boxel.data import Annotations
from boxel.evaluation.boxes import quality_metrics
from boxel.labeling.calibration import calibrate, collect_cues
from boxel.labeling.config import LabelConfig
from boxel.labeling.guarantee import MIN_SIDE
from boxel.labeling.quality import MIN_MASKS, find_calibration
from boxel.labeling.teachers import make_teacher

TEACHER = "boxcaseg"

NOTE = (
    "Calibration error and rank correlation of the quality on the images of `val`: as it is bundled, and corrected by "
    "true masks of other images, drawn at random; means over the draws. By chance: the error of a quality without any "
    "bias on so few boxes."
)


def main() -> None:
    """Record a row per dataset, and their mean and worst."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--masks", type=int, default=30)
    parser.add_argument("--instances", type=int, default=150, help="of each dataset at most, to measure on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the choice of masks")
    parser.add_argument("--domains", nargs="+", choices=[*KINDS], default=[*KINDS])
    args = parser.parse_args()
    columns = [
        "error",
        f"error, {args.masks} masks",
        "rank correlation",
        f"rank correlation, {args.masks} masks",
    ]
    table = Table(
        "domains", "calibrated", columns, first="images", title="Quality by a few true masks", note=NOTE
    )
    rows = []
    for name in args.domains:
        truth = first_images(read_domain(args.data, name), args.instances)
        training = read_domain(args.data, name, "train")
        config, bundled = LabelConfig(), find_calibration(TEACHER)
        teachers = [make_teacher(TEACHER, truth.categories)]
        cues, ious = collect_cues(truth, teachers, config)
        draws = [draw_masks(training, args.masks, seed) for seed in args.seeds]
        others = [
            calibrate(few, teachers, config, bundled) for few in draws if few.has_mask.sum() >= MIN_MASKS
        ]
        before, *after = (quality_metrics(ious, one.estimate(cues)) for one in (bundled, *others))
        pairs = [
            (before[key], np.mean([one[key] for one in after]) if after else np.nan)
            for key in ("calibration_error", "spearman")
        ]
        (error, corrected), ranks = pairs
        rows.append([error, error_by_chance(ious, bundled.estimate(cues)), corrected, *ranks])
        table.add(KINDS[name], len(ious), *rows[-1])
    if len(rows) > 1:
        errors, ranks = np.split(np.array(rows), [3], axis=1)
        table.add("mean", None, *np.nanmean(rows, axis=0))
        table.add("worst", None, *np.nanmax(errors, axis=0), *np.nanmin(ranks, axis=0))
    table.write(seeds=args.seeds)


def error_by_chance(ious: NDArray[np.float64], quality: NDArray[np.float64], repeats: int = 200) -> float:
    """Return the calibration error of a quality that is right on average, and as far off for each mask as this one."""
    rng, off = np.random.default_rng(0), ious - quality
    off = off - off.mean()
    errors = [
        quality_metrics(quality + rng.permutation(off), quality)["calibration_error"] for _ in range(repeats)
    ]
    return float(np.mean(errors))


def draw_masks(data: Annotations, count: int, seed: int) -> Annotations:
    """Return the images of so many instances drawn at random, with the masks of these alone.

    Boxes of less than 16 pixels are not drawn, since no calibration is made on them.
    """
    large = (data.boxes[:, 2:] - data.boxes[:, :2]).min(axis=1) >= MIN_SIDE
    few = keep_masks(data.keep_masks(data.has_mask & large), count, seed)
    return few.select_images(np.unique(few.image_index[few.has_mask]))


if __name__ == "__main__":
    main()

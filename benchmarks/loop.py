"""What are corrections worth? Label, correct the masks that `boxel next` chooses, adapt, label again, and repeat.

    python benchmarks/loop.py --out runs/loop

The reviewer is simulated: each chosen mask is replaced by the true one. After every round the network and its
quality are adapted to all corrections so far, and what is not corrected is labeled again. The choice is that of
`boxel next`, or random. Measured are the masks of the whole dataset, corrected ones with an IoU of 1, and the
calibration on those that are not corrected. An adaptation takes all the steps that it wants, so that a busy machine
changes nothing. Adapted networks in --out are not trained again, and what the table has for the same numbers of
corrections is kept, so that it can grow in parts; --again follows it again.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _record import RESULTS, Table, arguments, spread
from domains import KINDS, first_images, read_domain

import boxel
from boxel.data import Annotations
from boxel.evaluation.boxes import instance_ious, measure_masks
from boxel.labeling import choose_next, take_checked
from boxel.training.adapt import adapt

CHOICES = {"next": "`boxel next`", "random": "random"}
MINUTES = 60  # more than an adaptation needs
NOTE = (
    "Mean IoU of all masks of the dataset after so many were corrected, which count as 1, and the rest predicted by "
    "a network that was adapted to them; the calibration error and the rank correlation of the quality are those of "
    "the masks that were not corrected."
)

Rows = dict[tuple[str, str], list[list[Any]]]
"""For some images and a choice, the cells of each number of corrections."""


def main() -> None:
    """Follow what is missing."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--out", type=Path, default=Path("runs/loop"))
    parser.add_argument(
        "--domains", nargs="+", choices=KINDS, default=["cwfid", "pigs", "sat_buildings", "teeth_xray"]
    )
    parser.add_argument("--counts", type=int, nargs="+", default=[0, 10, 20, 40])
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=[*CHOICES])
    parser.add_argument("--instances", type=int, default=300, help="of each dataset at most")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--again", action="store_true", help="follow again what the table has")
    args = parser.parse_args()
    rows: Rows = {} if args.again else read_rows(args.counts)
    for name in args.domains:
        truth = first_images(read_domain(args.data, name, "train"), args.instances)
        for choice in args.choices:
            seeds = args.seeds if choice == "random" else args.seeds[:1]
            key = KINDS[name], CHOICES[choice]
            if key not in rows:
                runs = [
                    follow(truth, args.counts, args.out / f"{name}_{choice}_{k}", choice, k) for k in seeds
                ]
                rows[key] = [
                    [spread(cell) for cell in zip(*places, strict=True)] for places in zip(*runs, strict=True)
                ]
                record(rows, args)


def read_rows(counts: Sequence[int]) -> Rows:
    """Read what the table has for these numbers of corrections."""
    file = RESULTS / "review.json"
    tables = json.loads(file.read_text())["tables"] if file.exists() else {}
    rows: Rows = {}
    found = [row for row in tables.get("loop", {}).get("rows", []) if row[2] in counts]
    for images, choice, _, *cells in found:
        rows.setdefault((images, choice), []).append(cells)
    return {key: places for key, places in rows.items() if len(places) == len(counts)}


def record(rows: Rows, args: argparse.Namespace) -> None:
    """Record a row per dataset, choice and number of corrections."""
    columns = ["choice", "corrected", "mask IoU", "of the others", "calibration error", "rank correlation"]
    table = Table("review", "loop", columns, "images", "Corrections in rounds", NOTE)
    for (images, choice), places in sorted(rows.items()):
        for count, cells in zip(args.counts, places, strict=True):
            table.add(images, choice, count, *cells)
    table.write(args.seeds, shlex.join(["python", "benchmarks/loop.py", "--seeds", *map(str, args.seeds)]))


def follow(truth: Annotations, counts: Sequence[int], out: Path, choice: str, seed: int) -> list[list[float]]:
    """Correct in rounds; return the numbers of each."""
    boxes = truth.without_masks()
    masks, teacher, rows = boxel.label(boxes), "boxcaseg", []
    corrected: list[int] = []
    for count in counts:
        if count > len(corrected):
            corrected += choose(masks, truth, corrected, count, choice == "random", seed)
            own = keep(truth, corrected)
            teacher = str(adapt(boxes, out / str(count), masks=own, minutes=MINUTES))
            masks = boxel.label(own, teacher=teacher)
        rows.append(measure(truth, masks, corrected))
    return rows


def choose(
    masks: Annotations, truth: Annotations, corrected: Sequence[int], count: int, random: bool, seed: int
) -> list[int]:
    """Choose masks to correct, besides those that are corrected."""
    number = count - len(corrected)
    if random:
        order = (
            np.random.default_rng(seed).permutation(np.flatnonzero(truth.has_mask & ~truth.iscrowd)).tolist()
        )
        return [row for row in order if row not in set(corrected)][:number]
    checked = take_checked(masks, keep(truth, corrected))[0] if corrected else masks
    return [one.instance for one in choose_next(checked, number)]


def keep(truth: Annotations, rows: Sequence[int]) -> Annotations:
    """Keep the true masks of some objects."""
    return truth.keep_masks(list(rows))


def measure(truth: Annotations, masks: Annotations, corrected: Sequence[int]) -> list[float]:
    """Return the mean IoU of all masks, and IoU, calibration error and rank correlation of those not corrected."""
    ious, _, rows = instance_ious(truth, masks)
    own = np.isin(rows, list(corrected))
    others = truth.select_instances(np.setdiff1d(np.arange(len(truth.ids)), list(corrected)))
    rest = measure_masks(others, masks)
    mean = float(np.where(own, 1.0, ious).mean())
    return [mean, rest["mask_iou"], rest.get("calibration_error", np.nan), rest.get("spearman", np.nan)]


if __name__ == "__main__":
    main()

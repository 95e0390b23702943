"""Do several teachers predict better masks than the best of them?

    python benchmarks/several.py
    python benchmarks/several.py --lines

Fuses the votes of teachers by several rules, on COCO and Pascal VOC images and on all of `domains/measure`. --lines
compares `boxcaseg` with its network alone, without the lines that a filter finds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _record import Table, arguments
from domains import KINDS, first_images, read_all
from numpy.typing import NDArray

import boxel
from boxel.data import Annotations
from boxel.evaluation.boxes import measure_masks
from boxel.labeling import LabelConfig, label_image, make_teacher
from boxel.labeling.fusion import vote_logits
from boxel.labeling.probabilities import best_threshold, sigmoid
from boxel.labeling.quality import compute_cues, find_calibration
from boxel.labeling.shard import load_image
from boxel.labeling.teachers.base import SoftMask, Teacher
from boxel.labeling.teachers.boxcaseg import open_network

NAMES = ("boxcaseg", "boxcaseg-boxes", "grabcut-ellipse", "ellipse")
TEAMS = ((0, 1), (0, 2), (1, 2), (2, 3), (0, 1, 2))
RULES = {
    "averaged": np.ones_like,
    "weighed by quality": lambda quality: quality,
    "by its square": np.square,
    "by its softmax": lambda quality: np.exp(quality / 0.05),
    "best quality": lambda quality: quality == quality.max(),
}
"""Weights of the votes for a box, by the estimated quality of the mask that each teacher predicts alone."""


def main() -> None:
    """Record a row per team, or a row per dataset with --lines."""
    parser = arguments(__doc__, data=True)
    parser.add_argument("--lines", action="store_true", help="compare `boxcaseg` with its network alone")
    parser.add_argument(
        "--instances", type=int, help="of each dataset at most (default: 100; 300 with --lines)"
    )
    args = parser.parse_args()
    if args.lines:
        measure_lines(args.data, args.instances or 300)
    else:
        measure_rules(args.data, args.instances or 100)


def measure_rules(data: Path, instances: int) -> None:
    """Record the mean over datasets of the mean IoU of each team by each rule."""
    columns = ["best alone", *RULES, "its worst dataset", "best true IoU"]
    table = Table("several-teachers", "rules", columns, first="teachers", title="Rules")
    means = [measure_teams(first_images(truth, instances)) for _, truth in read_all(data)]
    alone, fused = (np.array(part) for part in zip(*means, strict=True))  # (S, teachers), (S, teams, rules)
    for k, team in enumerate(TEAMS):
        best = alone[:, max(team, key=lambda member: alone[:, member].mean())]
        *rules, by_truth = fused[:, k].mean(axis=0)
        worst = (fused[:, k, -2] - best).min()
        table.add(" + ".join(f"`{NAMES[member]}`" for member in team), best.mean(), *rules, worst, by_truth)
    table.write()


def measure_teams(truth: Annotations) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean IoU of each teacher alone, and of each team by each rule and by the best true IoU."""
    teachers = [make_teacher(name, truth.categories) for name in NAMES]
    found = [row for image in range(len(truth)) for row in measure_image(truth, image, teachers)]
    alone, fused = zip(*found, strict=True)
    return np.mean(alone, axis=0), np.mean(fused, axis=0)


def measure_image(
    truth: Annotations, image: int, teachers: list[Teacher]
) -> Iterator[tuple[list[float], list[list[float]]]]:
    """Yield the same for each true mask of an image; overlaps are not resolved."""
    own = truth.instances_in(image)
    own = own[truth.has_mask[own] & ~truth.iscrowd[own]]
    if not len(own):
        return
    pixels, config = load_image(truth, image), LabelConfig(merge="none")
    boxes, labels = truth.boxes[own], truth.labels[own]
    labeled = [label_image(pixels, boxes, labels, [teacher], config) for teacher in teachers]
    votes = [one.votes[0] for one in labeled]
    quality = np.array(
        [
            find_calibration(vote.teacher).estimate(compute_cues(one))
            for vote, one in zip(votes, labeled, strict=True)
        ]
    )
    quality = np.nan_to_num(quality).clip(1e-6)  # (teachers, N)
    calibrated = np.array([getattr(teacher, "calibrated", False) for teacher in teachers])
    for index, row in enumerate(own.tolist()):
        region = labeled[0].regions[index]
        rows, columns = np.arange(region.top, region.bottom), np.arange(region.left, region.right)
        probability = sigmoid(vote_logits(votes, index, rows, columns))  # (teachers, h, w)
        gt_mask = np.asarray(truth.mask(row, pixels.shape[:2])) > 0
        here, area = gt_mask[region.slices], gt_mask.sum()
        masks = [one.masks[index] for one in labeled]
        alone = [0.0 if mask is None else mask_iou(here, area, mask) for mask in masks]
        fused = []
        for team in map(list, TEAMS):
            ious = []
            for rule in RULES.values():
                mixed = np.average(probability[team], axis=0, weights=rule(quality[team, index]))
                threshold = best_threshold(mixed) if calibrated[team].all() else 0.5
                ious.append(mask_iou(here, area, mixed > threshold))
            fused.append([*ious, max(alone[member] for member in team)])
        yield alone, fused


def mask_iou(gt_mask: NDArray[np.bool_], area: int, mask: NDArray[np.bool_]) -> float:
    """Return the IoU of a mask with the part of a true one in its region, whose whole area is given."""
    both = np.count_nonzero(gt_mask & mask)
    return both / (area + np.count_nonzero(mask) - both)


class Network:
    """The network of `boxcaseg` alone."""

    name, calibrated = "boxcaseg", True

    def __init__(self) -> None:
        self.network = open_network(self.name)

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """Predict one soft mask per box."""
        found = zip(*self.network.soft_masks(image, boxes), strict=True)
        return [SoftMask(logits, tuple(window), float(score)) for logits, window, score in found]


def measure_lines(data: Path, instances: int) -> None:
    """Record the masks of each dataset by the network alone and with lines."""
    columns = ["instances", "network alone", "with lines", "calibration_error", "with lines"]
    table = Table("several-teachers", "lines", columns, first="images", title="Lines")
    teachers = Network(), "boxcaseg"
    rows = []
    for kind, truth in read_all(data):
        some = first_images(truth, instances)
        boxes = some.without_masks()
        found = [measure_masks(some, boxel.label(boxes, teacher=teacher)) for teacher in teachers]
        rows.append([one.get(name, np.nan) for name in ("mask_iou", "calibration_error") for one in found])
        table.add(kind, len(some.labels), *rows[-1])
    table.add("mean of the domains", None, *np.nanmean(rows[-len(KINDS) :], axis=0))
    table.write()


if __name__ == "__main__":
    main()

r"""When is the tight box of a mask closer to the true box than a loose box that was given?

    python benchmarks/tighten.py

Boxes of COCO and of `domains/measure` are moved as in `loose_boxes.py`, each side by up to a share of the box, and also
outwards only. Masks are made by `boxel.label`, and the rule of `--tighten` chooses boxes that they replace. `--save`
keeps the measurements, from which the table is made again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from _record import Table, arguments
from _runs import jitter_boxes, read_coco
from domains import KINDS, first_images, read_domain

import boxel
from boxel.data import Annotations
from boxel.data.tightening import choose_loose
from boxel.masks.boxes import paired_box_iou, tight_boxes
from boxel.masks.rle import decode_in_box

COLUMNS = ("loose", "outward", "kind", "quality", "agreement", "before", "after")

SETTINGS = [(0, 0), (0.05, 0), (0.1, 0), (0.2, 0), (0.1, 1), (0.2, 1)]


def main() -> None:
    """Record a row for each looseness."""
    parser = arguments(__doc__, data=True)
    parser.add_argument(
        "--instances", type=int, default=250, help="of COCO at most; of each domain a fifth of it"
    )
    parser.add_argument("--save", type=Path, help="a .npy file of the measurements; read if it is there")
    args = parser.parse_args()
    if args.save and args.save.is_file():
        rows = np.load(args.save)
    else:
        rows = np.array(measure_all(args.data, args.instances))
        if args.save:
            np.save(args.save, rows)
    columns = ["box IoU", "with `--tighten`", "worst dataset", "tightened", "of them closer"]
    table = Table("label-quality", "tighten", columns, first="sides off by up to", title="Tightened boxes")
    for loose, outward in SETTINGS:
        name = f"{loose:.0%}" + ", outwards" * outward
        table.add(name, *summarize(rows[(rows[:, :2] == (loose, outward)).all(axis=1)]))
    table.write(seeds=[0])


def measure_all(data: Path, instances: int) -> list[tuple[float, ...]]:
    """Return the rows of all settings and datasets."""
    sets = [first_images(read_coco(data, "val_masks"), instances)]
    for name in KINDS:
        sets.append(first_images(read_domain(data, name), instances // 5))
    return [
        row
        for loose, outward in SETTINGS
        for kind, truth in enumerate(sets)
        for row in measure(truth, loose, bool(outward), kind)
    ]


def summarize(rows: np.ndarray) -> list[float]:
    """Return the numbers of a row of the table; each dataset is judged alone."""
    kind, quality, agreement, before, after = rows[:, 2:].T
    chosen, gains = np.zeros(len(rows), dtype=bool), []
    for one in np.unique(kind):
        own = kind == one
        chosen[own] = choose_loose(quality[own], agreement[own])
        gains.append(float(np.where(chosen, after - before, 0)[own].mean()))
    new = np.where(chosen, after, before)
    closer = (after > before)[chosen].mean() if chosen.any() else np.nan
    return [float(before.mean()), float(new.mean()), min(gains), float(chosen.mean()), float(closer)]


def measure(truth: Annotations, loose: float, outward: bool, kind: int) -> list[tuple[float, ...]]:
    """Return a row of `COLUMNS` for each box with a mask."""
    exact = exact_boxes(truth)
    boxes = jitter_boxes(exact.without_masks(), loose)
    if outward:
        corners = exact.boxes + np.abs(boxes.boxes - exact.boxes) * [-1, -1, 1, 1]
        boxes = replace(boxes, boxes=corners.clip(0, limits(truth)))
    made = boxel.label(boxes, teacher="boxcaseg")
    rows = []
    for row in np.flatnonzero(made.has_segmentation & exact.has_box & ~made.iscrowd).tolist():
        mask, left, top = decode_in_box(made.rle(row))
        tight = np.array([left, top, left + mask.shape[1], top + mask.shape[0]], dtype=float)
        pairs = np.array(
            [[boxes.boxes[row], tight], [exact.boxes[row], boxes.boxes[row]], [exact.boxes[row], tight]]
        )
        agreement, before, after = paired_box_iou(pairs[:, 0], pairs[:, 1]).tolist()
        rows.append((loose, float(outward), kind, float(made.quality[row]), agreement, before, after))
    return rows


def limits(data: Annotations) -> np.ndarray:
    """Return (N, 4) right and bottom sides of the images."""
    return np.stack([data.widths, data.heights] * 2, axis=1)[data.image_index]


def exact_boxes(truth: Annotations) -> Annotations:
    """Return the instances with the tight boxes of their true masks."""
    boxes = truth.boxes.copy()
    for row in range(len(boxes)):
        if truth.has_segmentation[row]:
            boxes[row] = tight_boxes([truth.mask(row)])[0]
    return replace(truth, boxes=boxes)


if __name__ == "__main__":
    main()

"""Masks of given boxes against the true ones: of a labeled set, of a BoxCaseg, and of the simplest teachers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from boxel.data import Annotations, read
from boxel.evaluation.boxes import LEAST_SIDE, measure_masks
from boxel.labeling.api import label
from boxel.utils.errors import BoxelError

BASELINES = {"box": "rectangle", "grabcut": "grabcut"}
"""Teachers to compare with, by the names that `boxel evaluate --baselines` has for them."""

_COLUMNS = ("mask_iou", "IoU@50", "IoU@75", "mask_iou_by_class", "spearman", "calibration_error", "gain")


def measure(
    subject: str | Path | Annotations,
    truth: Annotations,
    baselines: Sequence[str] = (),
    categories: Sequence[str] | None = None,
    device: str = "auto",
    report: Callable[[str], None] = print,
) -> dict[str, dict[str, float]]:
    """Figures of masks that were made of the boxes of a set.

    Args:
        subject: a labeled set with the ids of the truth, or the folder or name of a BoxCaseg, which labels it now.
        truth: true masks.
        baselines: names of `BASELINES` to be measured beside it.
        categories: measure these only.
        device: where a BoxCaseg runs.
        report: is told of progress.

    Returns:
        By `masks` and the names of the baselines: the figures of
        :func:`~boxel.evaluation.boxes.measure_masks`.

    Raises:
        BoxelError: there is nothing to compare.
    """
    truth = truth if categories is None else truth.select_categories(categories)
    if not (truth.has_mask & ~truth.iscrowd).any():
        raise BoxelError(f"{truth.file}: it has no true masks to compare with; name annotations that do.")
    # A mask is made of a box, whatever the data set says of the instance otherwise.
    boxes = replace(truth.without_masks(), quality=None, source=None, trusted=None)  # type: ignore[arg-type]
    if isinstance(subject, Annotations):
        made = subject
    elif Path(subject).is_file():
        made = read(subject, images=truth.root)
    else:
        made = label(boxes, teacher=str(subject), device=device, report=report)
    sets = {"masks": made} | {
        name: label(boxes, teacher=BASELINES[name], report=report) for name in baselines
    }
    return {name: measure_masks(made, truth) for name, made in sets.items()}


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures as lines of text.

    Args:
        figures: of :func:`measure`.
    """
    columns = [name for name in _COLUMNS if any(name in row for row in figures.values())]
    width = max(map(len, figures))
    lines = [" " * width + "".join(f"{name:>{len(name) + 2}}" for name in columns)]
    for name, row in figures.items():
        cells = [f"{row[column]:.3f}" if column in row else "-" for column in columns]
        lines.append(
            f"{name:<{width}}"
            + "".join(f"{cell:>{len(column) + 2}}" for cell, column in zip(cells, columns, strict=True))
        )
    count = int(figures["masks"]["instances"])
    return "\n".join([*lines, f"{count:,} boxes with a side of {LEAST_SIDE:g} pixels or more"])


def is_labeled_set(path: str | Path) -> bool:
    """Whether a file is a data set in COCO's form, and not a list of results."""
    try:
        with open(path, "rb") as file:
            return file.read(64).lstrip().startswith(b"{")
    except OSError:
        return False

"""Calibrate quality: cues of masks of boxes whose true masks are known, and what their IoU is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from boxel.data import Annotations
from boxel.labeling.config import LabelConfig
from boxel.labeling.fusion import label_image
from boxel.labeling.quality import LEAST_MASKS, Calibration, cues, fit
from boxel.labeling.runner import fault_of, photo_of
from boxel.labeling.teachers.base import Teacher
from boxel.utils.errors import BoxelError

MIN_SIDE = 16.0
"""Minimum shorter side, in pixels, of the boxes that quality is calibrated on; `boxel evaluate` measures the same."""

ENOUGH_MASKS = 300
"""From so many masks up a calibration is fitted anew; fewer only correct the one that there is."""


def calibrate(
    data: Annotations,
    teachers: Sequence[Teacher],
    config: LabelConfig | None = None,
    prior: Calibration | None = None,
    report: Callable[[str], None] = print,
) -> Calibration:
    """A calibration for a set of images like these.

    Args:
        data: boxes with true masks, which the teachers must not have learned from.
        teachers: who draws the masks.
        config: how.
        prior: a calibration to be corrected where there are few masks.
        report: is told of images and true masks that can't be used.

    Raises:
        BoxelError: there are fewer than `LEAST_MASKS` true masks.
    """
    found, ious = collect(data, teachers, config or LabelConfig(), report)
    if len(ious) < LEAST_MASKS:
        raise BoxelError(
            f"{data.file}: {len(ious)} true masks, and quality is calibrated on {LEAST_MASKS} or more of boxes of at "
            f"least {MIN_SIDE:g} pixels; add some."
        )
    if prior is None or len(ious) >= ENOUGH_MASKS:
        return fit(found, ious)
    return corrected(prior, prior.of_cues(found), ious)


def collect(
    data: Annotations,
    teachers: Sequence[Teacher],
    config: LabelConfig,
    report: Callable[[str], None] = print,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cues of the masks that teachers make of a set's boxes, and the IoU of each with its true mask.

    Boxes that get no mask, crowds, and boxes with a side under 16 pixels are left out, as are images and true masks
    that can't be used.

    Args:
        data: boxes with true masks.
        teachers: who draws the masks.
        config: how.
        report: is told how many of these there are, and of the first.

    Returns:
        (M, C) cues and (M,) IoUs.
    """
    names = [category.name for category in data.categories]
    faults: list[str] = []

    def of_image(image: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        own = data.instances_in(image)
        own = own[data.has_box[own] & ~data.iscrowd[own]]
        try:
            pixels = photo_of(data, image)
            labeled = label_image(pixels, data.boxes[own], data.labels[own], names, teachers, config)
        except Exception as error:  # whatever it is, the other images are worth having
            faults.append(fault_of(data.image_path(image), error))
            return np.zeros((0, 0)), np.zeros(0)
        sides = (data.boxes[own, 2:] - data.boxes[own, :2]).min(axis=1)
        ious = np.full(len(own), np.nan)
        for index in np.flatnonzero(data.has_mask[own] & (sides >= MIN_SIDE)):
            mask, region = labeled.masks[index], labeled.regions[index]
            if mask is None:
                continue
            try:
                truth = np.asarray(data.mask(int(own[index]), pixels.shape[:2])) > 0
            except BoxelError as error:
                faults.append(str(error))
                continue
            both = (truth[region.top : region.bottom, region.left : region.right] & mask).sum()
            ious[index] = both / (truth.sum() + mask.sum() - both)
        known = np.isfinite(ious)
        return cues(labeled)[known], ious[known]

    with_masks = [int(image) for image in np.unique(data.image_index[data.has_mask])]
    with ThreadPoolExecutor(config.workers) as pool:
        parts = [part for part in pool.map(of_image, with_masks) if len(part[1])]
    if faults:
        report(f"{len(faults):,} images or masks can't be calibrated on, the first: {faults[0]}")
    if not parts:
        return np.zeros((0, 0)), np.zeros(0)
    return np.concatenate([found for found, _ in parts]), np.concatenate([ious for _, ious in parts])


def corrected(
    prior: Calibration, estimates: NDArray[np.float64], ious: NDArray[np.float64], strength: float = 10.0
) -> Calibration:
    """A calibration whose values are shifted and stretched to fit a few masks.

    Args:
        prior: the calibration.
        estimates: (M,) what it says of the masks.
        ious: (M,) their IoU with the truth.
        strength: so many masks weigh as much as the belief that it is right as it is.
    """
    known = np.isfinite(estimates)
    middle = float(estimates[known].mean())
    terms = np.stack([np.ones(known.sum()), estimates[known] - middle], axis=1)
    # A ridge on the difference: with few masks the correction is small.
    spread = np.diag([strength, strength * max(float(estimates[known].var()), 1e-4)])
    shift, stretch = np.linalg.solve(terms.T @ terms + spread, terms.T @ (ious[known] - estimates[known]))
    x, y = prior.curve
    rising = np.maximum.accumulate(y + shift + stretch * (y - middle))
    return replace(prior, curve=np.stack([x, rising])).signed()

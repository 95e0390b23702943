"""Calibrate quality on masks with a known ground truth."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from boxel.data import Annotations
from boxel.labeling.config import LabelConfig
from boxel.labeling.fusion import LabeledImage, label_image
from boxel.labeling.guarantee import MIN_SIDE, MIN_TRUE_MASKS, CheckedMasks
from boxel.labeling.quality import CUES, MIN_MASKS, Calibration, compute_cues, fit_calibration
from boxel.labeling.shard import describe_failure, load_image
from boxel.labeling.teachers.base import Teacher
from boxel.utils.errors import BoxelError
from boxel.utils.progress import progress

logger = logging.getLogger(__name__)

MIN_MASKS_TO_FIT = 300  # minimum for a calibration of their own; fewer masks only correct an existing one
_FOLDS = 10  # of the masks, of which each gets a quality from a calibration on the others
_PRIOR_MASKS = 10  # number of masks that weigh as much as the calibration that they correct


def calibrate(
    data: Annotations,
    teachers: Sequence[Teacher],
    config: LabelConfig | None = None,
    prior: Calibration | None = None,
) -> Calibration:
    """Calibrate the quality of masks for images like these.

    Args:
        data: Boxes with ground-truth masks, which the teachers must not have been trained on.
        teachers: The teachers that predict the masks.
        config: Settings.
        prior: The calibration to correct if there are few masks.

    Raises:
        BoxelError: There are fewer than `MIN_MASKS` ground-truth masks.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.labeling import make_teacher
        >>> calibrate(example_scenes(8), [make_teacher("ellipse")]).mean.shape
        (15,)
    """
    reference = prior.reference if prior else None
    cues, ious = collect_cues(data, teachers, config or LabelConfig(), reference=reference)
    if len(ious) < MIN_MASKS:
        raise BoxelError(
            f"{data.file}: {len(ious)} ground-truth masks of boxes of at least {MIN_SIDE:g} pixels; calibration takes "
            f"at least {MIN_MASKS}, add some."
        )
    known = None if len(ious) >= MIN_MASKS_TO_FIT else prior
    return replace(fit_or_correct(cues, ious, known), reference=reference)


def check_masks(
    data: Annotations,
    teachers: Sequence[Teacher],
    config: LabelConfig,
    prior: Calibration | None,
    recalibrate: bool,
) -> tuple[Calibration, CheckedMasks]:
    """Compare the masks that teachers predict with true masks, for a guarantee.

    Args:
        data: Boxes with true masks, among others perhaps; masks with a `source` are not true ones.
        teachers: The teachers that predict the masks.
        config: Settings, with the IoU to guarantee.
        prior: The calibration of the quality, if there is one.
        recalibrate: Calibrate the quality on the true masks. The quality of each is then that of a calibration on
            others, so that it does not depend on its own IoU.

    Returns:
        The calibration, and the quality and the IoU of the predicted masks.

    Raises:
        BoxelError: There are too few true masks for any guarantee.
    """
    iou, reference = config.guarantee or 0.0, prior.reference if prior else None
    cues, ious = collect_cues(distrust_predicted(data), teachers, config, reference=reference)
    if len(ious) < MIN_TRUE_MASKS:
        raise BoxelError(
            f"{data.file or 'the dataset'}: a `guarantee` needs at least {MIN_TRUE_MASKS} true masks with boxes of at "
            f"least {MIN_SIDE:g} pixels, and there are {len(ious)}; correct at least {MIN_TRUE_MASKS - len(ious)} more "
            "that `boxel next --random` draws, and name their file in `calibrate_on`."
        )
    if not recalibrate and prior is not None:
        return prior, CheckedMasks(prior.estimate(cues), ious, iou)
    known = None if len(ious) >= MIN_MASKS_TO_FIT else prior
    left_out = estimate_left_out(cues, ious, known)
    calibration = replace(fit_or_correct(cues, ious, known), reference=reference)
    return calibration, CheckedMasks(left_out, ious, iou)


def fit_or_correct(
    cues: NDArray[np.float64], ious: NDArray[np.float64], prior: Calibration | None
) -> Calibration:
    """Fit a calibration to (M, C) cues and (M,) IoU of masks, or correct the one that there is."""
    if prior is None:
        return fit_calibration(cues, ious)
    return correct_calibration(prior, prior.estimate(cues), ious)


def estimate_left_out(
    cues: NDArray[np.float64], ious: NDArray[np.float64], prior: Calibration | None
) -> NDArray[np.float64]:
    """Estimate the (M,) quality of each mask by a calibration on the other folds."""
    order, quality = np.arange(len(ious)), np.zeros(len(ious))
    for fold in range(_FOLDS):
        here = order % _FOLDS == fold
        quality[here] = fit_or_correct(cues[~here], ious[~here], prior).estimate(cues[here])
    return quality


def distrust_predicted(data: Annotations, teachers: Sequence[Teacher] | None = None) -> Annotations:
    """Return the dataset without trust in masks of some teachers, of any if None: they are not the ground truth.

    Examples:
        >>> from boxel.data import example_scenes
        >>> masks = example_scenes()
        >>> masks.source[0] = "boxcaseg"
        >>> distrust_predicted(masks).has_mask.tolist()
        [False, True, True, True, True]
    """
    names = None if teachers is None else {teacher.name for teacher in teachers}
    predicted = [
        source is not None and (names is None or not names.isdisjoint(source.split("+")))
        for source in data.source
    ]
    return replace(data, trusted=data.trusted & ~np.array(predicted, dtype=bool))


def collect_cues(
    data: Annotations,
    teachers: Sequence[Teacher],
    config: LabelConfig,
    min_side: float = MIN_SIDE,
    reference: Teacher | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Label a dataset with ground-truth masks and collect (M, C) cues and (M,) IoU of the masks.

    Boxes without a mask or with one of these teachers, crowds, and boxes with a side below `min_side` pixels are left
    out, as are images and ground-truth masks that cannot be used; a warning counts those.
    """
    data, problems = distrust_predicted(data, teachers), list[str]()
    nothing = np.zeros((0, len(CUES))), np.zeros(0)

    def label(image: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        own = data.instances_in(image)
        own = own[data.has_box[own] & ~data.iscrowd[own]]
        try:
            pixels = load_image(data, image)
            labeled = label_image(pixels, data.boxes[own], data.labels[own], teachers, config)
        except Exception as error:  # other images are still usable
            problems.append(describe_failure(data.image_path(image), error))
            return nothing
        ious = _instance_ious(data, own, labeled, problems, min_side)
        known = np.isfinite(ious)
        return compute_cues(labeled, reference)[known], ious[known]

    images = [int(image) for image in np.unique(data.image_index[data.has_mask])]
    parts = [nothing]
    with (
        progress(len(images), "images to calibrate on") as advance,
        ThreadPoolExecutor(config.workers) as pool,
    ):
        for part in pool.map(label, images):
            parts.append(part)
            advance(1)
    if problems:
        logger.warning(
            "%d images or masks cannot be used for calibration; the first: %s", len(problems), problems[0]
        )
    cues, ious = zip(*parts, strict=True)
    return np.concatenate(cues), np.concatenate(ious)


def _instance_ious(
    data: Annotations,
    own: NDArray[np.int64],
    labeled: LabeledImage,
    problems: list[str],
    min_side: float,
) -> NDArray[np.float64]:
    """Compute the IoU of each mask of an image with the ground truth; NaN if it cannot be used."""
    sides = (data.boxes[own, 2:] - data.boxes[own, :2]).min(axis=1)
    ious = np.full(len(own), np.nan)
    for index in np.flatnonzero(data.has_mask[own] & (sides >= min_side)):
        mask, region = labeled.masks[index], labeled.regions[index]
        if mask is None:
            continue
        try:
            gt_mask = np.asarray(data.mask(int(own[index]), labeled.image.shape[:2])) > 0
        except BoxelError as error:
            problems.append(str(error))
            continue
        intersection = (gt_mask[region.slices] & mask).sum()
        ious[index] = intersection / (gt_mask.sum() + mask.sum() - intersection)
    return ious


def correct_calibration(
    prior: Calibration, estimates: NDArray[np.float64], ious: NDArray[np.float64]
) -> Calibration:
    """Shift and stretch the values of a calibration to fit its (M,) estimates of a few masks to their (M,) IoU."""
    known = np.isfinite(estimates)
    center = float(estimates[known].mean())
    terms = np.stack([np.ones(known.sum()), estimates[known] - center], axis=1)
    # A ridge on the difference: with few masks the correction is small.
    penalty = _PRIOR_MASKS * np.diag([1.0, max(float(estimates[known].var()), 1e-4)])
    shift, stretch = np.linalg.solve(terms.T @ terms + penalty, terms.T @ (ious[known] - estimates[known]))
    x, y = prior.curve
    rising = np.maximum.accumulate(y + shift + stretch * (y - center))
    # The images are no longer unlike those of the calibration.
    curve = np.stack([x, rising])
    return replace(prior, curve=curve, precision=np.zeros_like(prior.precision), is_fitted=True)

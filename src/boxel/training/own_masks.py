"""Adapt BoxCaseg to boxes alone: it learns from its own masks, as long as outlines lie where colors change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boxel.data import Annotations
from boxel.labeling.config import LabelConfig
from boxel.labeling.fusion import label_image
from boxel.labeling.quality import CUES, compute_cues
from boxel.labeling.runner import label_images
from boxel.labeling.shard import load_image
from boxel.labeling.store import Store
from boxel.labeling.teachers.base import SoftMask, Teacher
from boxel.models.boxcaseg import BoxCaseg
from boxel.training.few_masks import SHARES, adapted_teacher, blend, count_steps, split_instances, tune

MIN_BOXES = 20
"""Minimum number of boxes with a mask to learn from."""

MAX_LOSS = 0.002
"""Maximum loss of contrast of masks that are left out; otherwise the model stays as it is."""

_MAX_BOXES = 200  # that are learned from
_STEPS = 100
_SHARE = min(SHARES)  # of the way to the learned weights; all of it loses more where the masks are wrong
_NOISE = 0.03  # standard deviation of the sides of a box, as a share of its width or height
_CONTRAST = CUES.index("contrast")


@dataclass(frozen=True)
class OwnAdaptation:
    """A model after training on its own masks, and the cues of held-out masks before and after.

    Attributes:
        model: The adapted model in eval mode; the one to start from if that is better.
        steps: Number of steps that it has learned; 0 if it is the one to start from.
        masks: Number of masks that it could learn from.
        before: (M, C) cues of the masks of the model to start from.
        after: (M, C) cues of the masks of the same boxes by models that have learned from the masks of others.
    """

    model: BoxCaseg
    steps: int
    masks: int
    before: NDArray[np.float64]
    after: NDArray[np.float64]

    @property
    def contrast(self) -> tuple[float, float]:
        """Mean difference of color across the outlines, before and after."""
        return float(self.before[:, _CONTRAST].mean()), float(self.after[:, _CONTRAST].mean())


def learn_own_masks(model: BoxCaseg, data: Annotations, minutes: float, seed: int = 0) -> OwnAdaptation:
    """Adapt a model to the boxes of a dataset, by its own masks of some of them.

    The masks are those of several passes, on the flipped image and from disturbed boxes, so that they are steadier than
    those of a single one; what many objects of a dataset have in common, the model learns for the rest. That can go
    wrong, so its weights go half of the way only. Models that learn from half of the masks show it on the other half:
    where they err, their outlines leave the changes of color.

    Args:
        model: The model to start from.
        data: The dataset; its trusted masks are kept.
        minutes: Approximate duration.
        seed: Seed of the choice of boxes, of the halves and of the augmentation.
    """
    own = predict_own_masks(model, draw_images(data, _MAX_BOXES, seed), seed)
    chosen = np.flatnonzero(own.has_mask & own.has_box & ~own.iscrowd)
    nothing = np.zeros((0, len(CUES)))
    if len(chosen) < MIN_BOXES:
        return OwnAdaptation(model.eval(), 0, len(chosen), nothing, nothing)
    steps = count_steps(model, own, chosen, minutes, _STEPS)
    pairs = []
    for part in split_instances(own, chosen, seed):
        *_, tuned = tune(model, own, np.setdiff1d(chosen, part), steps, seed)
        pairs.append([describe_masks(one, own, part) for one in (model, blend(model, tuned, _SHARE))])
    before, after = (np.concatenate(cues) for cues in zip(*pairs, strict=True))
    known = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    found = OwnAdaptation(model.eval(), 0, len(chosen), before[known], after[known])
    if not known.any() or found.contrast[1] < found.contrast[0] - MAX_LOSS:
        return found
    *_, tuned = tune(model, own, chosen, steps, seed)
    return OwnAdaptation(blend(model, tuned, _SHARE).eval(), steps, len(chosen), found.before, found.after)


class JitteredTeacher:
    """A teacher that sees each box with its sides moved at random.

    Args:
        teacher: The teacher that predicts the masks.
        seed: The same seed moves the boxes alike, if the images come in the same order.
    """

    name, calibrated = "jittered", True

    def __init__(self, teacher: Teacher, seed: int = 0) -> None:
        self._teacher, self._rng = teacher, np.random.default_rng(seed)

    def __call__(
        self, image: NDArray[np.uint8], boxes: NDArray[np.float64], labels: NDArray[np.int32]
    ) -> list[SoftMask]:
        """Predict one soft mask per box; see :class:`~boxel.labeling.teachers.base.Teacher`."""
        extent = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        moved = boxes + self._rng.normal(0, _NOISE, boxes.shape) * extent
        return self._teacher(image, moved, labels)


def predict_own_masks(model: BoxCaseg, data: Annotations, seed: int) -> Annotations:
    """Return a dataset with the masks of a model, made in several passes; trusted masks are kept."""
    teacher = adapted_teacher(model)
    known = data.keep_masks(np.flatnonzero(data.has_mask))
    passes: list[Teacher] = [teacher, JitteredTeacher(teacher, seed)]
    with Store() as store:  # nobody asks for their quality
        return label_images(known, passes, LabelConfig(flip=True, workers=1), store).data


def describe_masks(model: BoxCaseg, data: Annotations, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the (M, C) cues of a model's masks of the chosen boxes; a row of NaN without a mask."""
    teacher, cues = adapted_teacher(model), np.full((len(data.ids), len(CUES)), np.nan)
    for image in np.unique(data.image_index[chosen]).tolist():
        own = data.instances_in(image)
        own = own[data.has_box[own] & ~data.iscrowd[own]]
        pixels = load_image(data, image)
        labeled = label_image(pixels, data.boxes[own], data.labels[own], [teacher], LabelConfig())
        cues[own] = compute_cues(labeled)
    return cues[chosen]


def draw_images(data: Annotations, boxes: int, seed: int) -> Annotations:
    """Draw images at random until they have so many boxes together."""
    order = np.random.default_rng(seed).permutation(len(data))
    counts = np.bincount(data.image_index[data.has_box], minlength=len(data))[order].cumsum()
    return data.select_images(np.sort(order[: 1 + int(np.searchsorted(counts, boxes))]).tolist())

"""The CRF that fits a segmenter best, found by trying on images that it has not learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxel.crf import CRFConfig
from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.data.label_maps import IGNORE_INDEX, build_class_lookup, make_label_map
from boxel.evaluation.maps import measurable
from boxel.evaluation.semantic import confusion, semantic_figures
from boxel.models.semantic.inference import predict_probabilities, refine_with_crf, semantic_inference_config
from boxel.utils.errors import BoxelError

VALUES: dict[str, tuple[float, ...]] = {
    "appearance_weight": (0.5, 1, 2, 4, 7, 10, 15),
    "appearance_sigma": (5, 10, 20, 40, 60, 80, 120),
    "color_sigma": (3, 5, 8, 13, 20, 30),
    "smooth_weight": (0, 1, 3, 6),
}
"""What is tried of each option, the most important first. `smooth_sigma` stays at 3, as DeepLab has it.

A `appearance_weight` of 0 is not among it: the sigmas would do nothing, and the search would end there.
"""


class Try(NamedTuple):
    """What a CRF gave.

    Attributes:
        crf: None for none at all.
        mean_iou: in [0, 1].
    """

    crf: CRFConfig | None
    mean_iou: float


def tune_crf(
    model: Any, truth: Annotations, count: int = 100, report: Callable[[str], None] = print
) -> list[Try]:
    """Search for the CRF with which a segmenter has the best mean IoU on a set.

    The search is a descent by coordinates: from the defaults it moves one option at a time a step up or down its
    `VALUES` for as long as that helps, until no step of any does. The network looks at each image once; its
    probabilities are kept, 2 bytes for each class of a pixel.

    Args:
        model: a :class:`~boxel.models.semantic.model.Segmenter` in eval mode.
        truth: as of :func:`~boxel.evaluation.maps.measure_maps`; images that the model has not learned from.
        count: of its images, evenly chosen.
        report: is told of each try, and of images that can't be used.

    Returns:
        What was tried, in that order: first none at all, then the defaults.

    Raises:
        BoxelError: the set has none of the model's classes, or no image can be used.
    """
    cases = list(_cases(model, truth, count, report))
    if not cases:
        raise BoxelError(f"{truth.file}: not one of its {len(truth)} images can be measured.")
    tries: dict[tuple[float, ...], Try] = {}

    def mean_iou(crf: CRFConfig | None) -> float:
        key = () if crf is None else astuple(crf)
        if key not in tries:
            tries[key] = Try(crf, _mean_iou(cases, crf, model))
            report(f"{_told(crf)}: mean IoU {100 * tries[key].mean_iou:.2f}")
        return tries[key].mean_iou

    mean_iou(None)
    descend(mean_iou, CRFConfig())
    return list(tries.values())


def best_crf(tries: Sequence[Try]) -> CRFConfig:
    """Of all CRFs that were tried the one with the best mean IoU, be it better than none or not."""
    return cast(CRFConfig, max(tries[1:], key=lambda attempt: attempt.mean_iou).crf)


def tries_table(tries: Sequence[Try]) -> str:
    """What :func:`tune_crf` tried as text, in percent, and what to make of it."""
    lines = [" ".join([*VALUES, "mean IoU"])]
    for crf, mean_iou in tries:
        cells = ["no CRF", "", "", ""] if crf is None else [f"{getattr(crf, name):g}" for name in VALUES]
        padded = [f"{cell:>{len(name)}}" for cell, name in zip(cells, VALUES, strict=True)]
        lines.append(" ".join([*padded, f"{100 * mean_iou:8.2f}"]))
    (_, without), with_best = tries[0], max(mean_iou for _, mean_iou in tries[1:])
    verdict = f"mean IoU {100 * without:.2f} without a CRF, {100 * with_best:.2f} with the best one"
    return "\n".join([*lines, "", verdict + ("." if with_best > without else ": leave --crf out.")])


def descend(score: Callable[[CRFConfig], float], start: CRFConfig) -> CRFConfig:
    """The best CRF that steps along one of `VALUES` at a time lead to, each better than the one before.

    Args:
        score: the higher the better; asked more than once about the same.
        start: where it starts, its options among `VALUES`.
    """
    best, best_score, before = start, score(start), None
    while best != before:
        before = best
        for name in VALUES:
            for step in (-1, 1):  # most networks want less than the defaults
                while (moved := _moved(best, name, step)) and (moved_score := score(moved)) > best_score:
                    best, best_score = moved, moved_score
    return best


def _moved(crf: CRFConfig, name: str, step: int) -> CRFConfig | None:
    """A CRF with the next of the values of an option; None where there is none."""
    values = VALUES[name]
    place = values.index(getattr(crf, name)) + step
    if not 0 <= place < len(values):
        return None
    change: dict[str, Any] = {name: values[place]}
    return replace(crf, **change)


def _told(crf: CRFConfig | None) -> str:
    return "no CRF" if crf is None else ", ".join(f"{name} {getattr(crf, name):g}" for name in VALUES)


class _Case(NamedTuple):
    photo: Tensor  # (3, H, W) uint8
    logs: Tensor  # (K, H, W) float16, of probabilities: of small ones themselves nothing would be left
    truth: NDArray[np.uint8]  # (H, W)


def _cases(model: Any, truth: Annotations, count: int, report: Callable[[str], None]) -> Iterator[_Case]:
    """What the network says of images that are evenly chosen, and what is true of them."""
    table, looks = build_class_lookup(truth, model.categories), semantic_inference_config(model)
    device = next(model.parameters()).device
    known = measurable(truth, report)
    chosen = np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int)
    for image in known[chosen].tolist():
        try:
            pixels = read_image(truth.image_path(image))
            labels = table[make_label_map(truth, image, pixels.shape[:2])]
        except BoxelError as error:
            report(f"left out: {error}")
            continue
        photo = torch.from_numpy(pixels).permute(2, 0, 1)
        found = predict_probabilities(model.network, photo.to(device), looks)
        yield _Case(photo, found.log().half().cpu(), labels)


@torch.inference_mode()
def _mean_iou(cases: list[_Case], crf: CRFConfig | None, model: Any) -> float:
    names = [category.name for category in model.categories]
    device = next(model.parameters()).device
    total = np.zeros((len(names), len(names)), dtype=np.int64)
    for photo, logs, truth in cases:
        scores = logs.to(device).float()
        if crf is not None:
            scores = refine_with_crf(photo.to(device), scores.exp(), crf)
        total += confusion(scores.argmax(0).cpu().numpy(), truth, len(names), IGNORE_INDEX)
    return float(semantic_figures(total, names)["mean_iou"])

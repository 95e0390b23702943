"""Search for the CRF that suits a semantic segmenter, on images that it was not trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxel.crf import CRFConfig
from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.evaluation.semantic import confusion, load_labels, select_measurable, semantic_metrics
from boxel.evaluation.tables import format_table
from boxel.models.semantic.inference import predict_probabilities, refine_with_crf, semantic_inference_config

if TYPE_CHECKING:
    from boxel.models.semantic.model import Segmenter

logger = logging.getLogger(__name__)

VALUES: dict[str, tuple[float, ...]] = {
    "appearance_weight": (0.5, 1, 2, 4, 7, 10, 15),
    "appearance_sigma": (5, 10, 20, 40, 60, 80, 120),
    "color_sigma": (3, 5, 8, 13, 20, 30),
    "smooth_weight": (0, 1, 3, 6),
}
"""The values tried of each setting, the most important first. `smooth_sigma` stays at 3, as in DeepLab.

An `appearance_weight` of 0 is missing on purpose: the sigmas would have no effect, and the search would end there.
"""


class Trial(NamedTuple):
    """A CRF and its result."""

    crf: CRFConfig | None  # None for no CRF at all
    mean_iou: float  # in [0, 1]


def tune_crf(model: Segmenter, truth: Annotations, count: int = 100) -> list[Trial]:
    """Search for the CRF that gives a segmenter the best mean IoU on a dataset.

    The search is coordinate descent: from the defaults it moves one setting at a time a step up or down its `VALUES`
    as long as that helps, until no step of any setting does. The network runs once per image; its probabilities are
    kept, 2 bytes per class and pixel. Each trial is logged, and so are images that cannot be used.

    Args:
        model: A segmenter in eval mode.
        truth: As for :func:`~boxel.evaluation.semantic.measure_segmenter`; images that the model was not trained on.
        count: Number of its images to use, drawn at random, always the same ones.

    Returns:
        The trials in order: first without a CRF, then with the defaults.

    Raises:
        BoxelError: The dataset has none of the model's classes, or no image can be used.

    References:
        Dai et al. (BoxSup), ICCV 2015, Section 5.1: 100 random images of the validation set decide.

    Examples:
        >>> from boxel.data import example_scenes, pixel_classes
        >>> from boxel.models import build
        >>> truth, model = example_scenes(), build("boxsup", 6, {"backbone": "resnet10t", "weights": "none"})
        >>> model.categories = pixel_classes(truth)
        >>> print(tune_crf(model.eval(), truth)[0].crf)
        None
    """
    cases = list(_load_cases(model, truth, count))
    trials: dict[tuple[float, ...], Trial] = {}

    def mean_iou(crf: CRFConfig | None) -> float:
        key = () if crf is None else astuple(crf)
        if key not in trials:
            trials[key] = Trial(crf, _mean_iou(cases, crf, model))
            logger.info("%s: mean IoU %.4f", _describe(crf), trials[key].mean_iou)
        return trials[key].mean_iou

    mean_iou(None)
    descend(mean_iou, CRFConfig())
    return list(trials.values())


def best_crf(trials: Sequence[Trial]) -> CRFConfig:
    """Return the CRF with the best mean IoU, whether it is better than none or not.

    Examples:
        >>> weak = CRFConfig(appearance_weight=4)
        >>> best_crf([Trial(None, 0.9), Trial(CRFConfig(), 0.7), Trial(weak, 0.8)]) == weak
        True
    """
    return cast(CRFConfig, max(trials[1:], key=lambda trial: trial.mean_iou).crf)


def format_trials(trials: Sequence[Trial]) -> str:
    """Format the trials of :func:`tune_crf` as a table with a conclusion.

    Examples:
        >>> format_trials([Trial(None, 0.7), Trial(CRFConfig(), 0.75)]).splitlines()[-1]
        'mean IoU 0.7000 without a CRF, 0.7500 with the best one.'
    """
    rows = [[*VALUES, "mean IoU"]]
    for crf, mean_iou in trials:
        cells = ["no CRF", "", "", ""] if crf is None else [f"{getattr(crf, name):g}" for name in VALUES]
        rows.append([*cells, f"{mean_iou:.4f}"])
    (_, without), with_best = trials[0], max(mean_iou for _, mean_iou in trials[1:])
    verdict = f"mean IoU {without:.4f} without a CRF, {with_best:.4f} with the best one"
    return f"{format_table(rows)}\n\n{verdict}{'.' if with_best > without else '; do not use `crf`.'}"


def descend(score: Callable[[CRFConfig], float], start: CRFConfig) -> CRFConfig:
    """Return the best CRF that steps along one of `VALUES` at a time lead to, each with a higher score than the last.

    The score may be called repeatedly with the same CRF. The settings of the start are among `VALUES`.
    """
    best, best_score, before = start, score(start), None
    while best != before:
        before = best
        for name in VALUES:
            for step in (-1, 1):  # most networks want less than the defaults
                while (moved := _move(best, name, step)) and (moved_score := score(moved)) > best_score:
                    best, best_score = moved, moved_score
    return best


def _move(crf: CRFConfig, name: str, step: int) -> CRFConfig | None:
    """Return a CRF with the next value of a setting, or None at the end of the values."""
    values = VALUES[name]
    place = values.index(getattr(crf, name)) + step
    if not 0 <= place < len(values):
        return None
    change: dict[str, Any] = {name: values[place]}
    return replace(crf, **change)


def _describe(crf: CRFConfig | None) -> str:
    return "no CRF" if crf is None else ", ".join(f"{name} {getattr(crf, name):g}" for name in VALUES)


class _Case(NamedTuple):
    image: Tensor  # (3, H, W) uint8
    logs: Tensor  # (K, H, W) float16, logarithms since small probabilities would vanish
    gt: NDArray[np.uint8]  # (H, W)


def _load_cases(model: Segmenter, truth: Annotations, count: int) -> Iterator[_Case]:
    """Yield the probabilities and the true labels of randomly drawn images."""
    config, device = semantic_inference_config(model), next(model.parameters()).device
    known = select_measurable(truth)
    chosen = np.sort(np.random.default_rng(0).permutation(known)[:count])

    def read(image: int) -> NDArray[np.uint8]:
        return read_image(truth.image_path(image))

    for _, pixels, gt in load_labels(truth, model.categories, chosen, read):
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        predicted = predict_probabilities(model.network, image.to(device), config)
        yield _Case(image, predicted.log().half().cpu(), gt)


@torch.inference_mode()
def _mean_iou(cases: list[_Case], crf: CRFConfig | None, model: Segmenter) -> float:
    names = [category.name for category in model.categories]
    device = next(model.parameters()).device
    total = np.zeros((len(names), len(names)), dtype=np.int64)
    for image, logs, gt in cases:
        scores = logs.to(device).float()
        if crf is not None:
            scores = refine_with_crf(image.to(device), scores.exp(), crf)
        total += confusion(gt, scores.argmax(0).cpu().numpy(), len(names))
    return float(semantic_metrics(total, names)["mean_iou"])

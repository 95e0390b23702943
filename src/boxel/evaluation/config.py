"""The settings of evaluations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from boxel.models.thresholds import ScoreThreshold
from boxel.utils.config import ClosedUnitInterval, Config, PositiveFloat, PositiveInt


@dataclass
class EvaluateConfig(Config):
    """What is measured, and how a model is run. Settings that do nothing for a subject are refused.

    Attributes:
        categories: Measure these categories only. None: all.
        class_agnostic: Count all categories as one.
        boundary: Also compute Boundary AP, which takes longest.
        regions: Also compute mAP^r at IoUs of 0.25, 0.5, 0.7 and 0.75, and mAP^r_vol, the metrics of Pascal VOC.
        plain: Measure masks of given boxes as the BoxCaseg paper does: boxes of any size, and of a model each mask as
            it is, with its overlaps and small components.
        saliency: Also compute MAE and the maximum F-measure of the foreground of whole images (models that predict
            masks of given boxes).
        baselines: Masks from the same boxes to compare with: `box` fills them, `grabcut` runs GrabCut.
        trimap: Widths of bands around true boundaries, in pixels, in which mean IoU is computed too (semantic models).
        report: HTML page to write: the metrics by class and size, what is behind them, the worst images or masks, and
            of a run its training. Of detections, `analysis` of the metrics has its numbers.
        results: File to which the detections are written as COCO results before they are measured.
        short_side: Resize the shorter side to this many pixels (instance models). None: as in training.
        long_side: Resize the longer side to this many pixels (semantic models). None: as in training.
        flip: Average over the image and its mirror image.
        scales: Factors on the size of the image; the predictions at all of them are merged.
        score_threshold: Minimum score of a detection; `best` for the one that the training has chosen for its class.
        class_agnostic_nms: Keep one instance of any class where several overlap, so that an object has one class.
        mask_nms: IoU of masks above which the lower-scoring of two instances of a class is dropped (of any two with
            `class_agnostic_nms`). None: only boxes count.
        batch_size: Images per forward pass, padded to one size, which changes scores slightly.
        true_classes: Vote on the true classes of pixels instead of the predicted ones, the paper's pilot experiment
            (runs of `fcrn-instances`).
        tile: Predict larger images in overlapping squares of this side, in pixels, each resized like an image of the
            training. None: whole images.
        shifts: Interleave n x n passes, each shifted by a fraction of a cell (semantic models).
        crf: Refine with a CRF, with the settings that `boxel tune-crf` found for the model (semantic models).
        device: `cpu`, `cuda`, `mps`, or `auto` for CUDA if available.
    """

    categories: list[str] | None = None
    class_agnostic: bool = False
    boundary: bool = True
    regions: bool = False
    plain: bool = False
    saliency: bool = False
    baselines: list[Literal["box", "grabcut"]] = field(default_factory=list)
    trimap: list[PositiveInt] = field(default_factory=list)
    report: str | None = None
    results: str | None = None
    short_side: PositiveInt | None = None
    long_side: PositiveInt | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    score_threshold: ScoreThreshold = 0.0
    class_agnostic_nms: bool = False
    mask_nms: ClosedUnitInterval | None = None
    batch_size: PositiveInt = 1
    true_classes: bool = False
    tile: PositiveInt | None = None
    shifts: PositiveInt = 1
    crf: bool = False
    device: str = "auto"


@dataclass
class AffinityConfig(Config):
    """The grid on which :func:`~boxel.evaluation.count_edges` compares pixels, and the edges on it.

    Attributes:
        stride: Pixels per cell of the grid, as in training.
        size: Side of the neighborhood, in cells.
        dilation: Dilation of the neighborhood.
        theta: Scale of the color similarity (Eq. 7).
        short_side: Resize the shorter side of each image to this many pixels, as in training. None: keep it.
    """

    stride: PositiveInt = 4
    size: PositiveInt = 3
    dilation: PositiveInt = 2
    theta: PositiveFloat = 2.0
    short_side: PositiveInt | None = None

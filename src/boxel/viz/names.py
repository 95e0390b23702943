"""The names of measures and losses that people read, and what they mean: one table for texts, plots and pages."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """A measure as people read it."""

    name: str
    meaning: str = ""


_AP = "the mean over classes and over IoUs of 0.5 to 0.95 of COCO's average precision; it rewards exact {}"
_MEASURES = {
    # detections
    "mask_AP": ("mask AP", _AP.format("masks")),
    "mask_AP50": (
        "mask AP50",
        "mask AP at an IoU of 0.5 alone, which forgives coarse outlines; far above the AP if objects are found, but "
        "their masks are not exact",
    ),
    "mask_AP75": ("mask AP75", "mask AP at an IoU of 0.75 alone"),
    "boundary_AP": (
        "boundary AP",
        "mask AP by outlines instead of areas, which separates fine masks from coarse ones",
    ),
    "box_AP": ("box AP", _AP.format("boxes")),
    "box_AP50": ("box AP50", "box AP at an IoU of 0.5 alone"),
    "f1": ("F1", "harmonic mean of precision and recall at the threshold"),
    "threshold": (
        "threshold",
        "minimum score with the best F1 over all objects; detections of lower scores are left out where this page "
        "names the threshold",
    ),
    "precision": ("precision", "share of the detections of at least the threshold that are correct"),
    "recall": ("recall", "share of the objects that these detections find"),
    "mask_fill": ("mask fill", "mean share of its box that a mask fills; near 1, masks are boxes"),
    # masks of given boxes
    "mask_iou": (
        "mask IoU",
        "mean overlap (IoU) of masks with the true ones; of detections, of the objects whose box is found",
    ),
    "IoU@50": ("IoU@50", "share of the masks with an IoU above 0.5"),
    "IoU@75": ("IoU@75", "share of the masks with an IoU above 0.75"),
    "mask_iou_by_class": (
        "mask IoU by class",
        "mean over classes of their mask IoU, so that rare classes count alike",
    ),
    "box_agreement": ("box agreement", "mean IoU of the tight boxes of masks with the true boxes"),
    "spearman": (
        "spearman",
        "rank correlation of quality and IoU: 1 if the quality ranks the masks as their IoU does",
    ),
    "calibration_error": (
        "calibration error",
        "mean distance of a score or quality from what it promises: 0 if a score of 0.7 is right 7 times of 10, or "
        "masks of quality 0.7 have an IoU of 0.7",
    ),
    "gain": (
        "gain",
        "what keeping the best 60 % by quality adds to the mean IoU, as a share of what the best 60 % by IoU would add",
    ),
    "mae": ("MAE", "mean absolute error of the foreground probability of a pixel"),
    "max_f": ("max F", "maximum F-measure of the foreground (beta² = 0.3)"),
    # classes of pixels
    "mean_iou": ("mean IoU", "mean over classes of intersection over union"),
    "pixel_accuracy": ("pixel accuracy", "share of the pixels with the right class; large classes decide it"),
    "mean_class_accuracy": (
        "mean class accuracy",
        "mean over classes of the share of their pixels that is found",
    ),
}
_LOSSES = {"mil": "MIL", "total": "total", "smooth": "smoothness", "box": "box regression"}


def describe_measure(key: str) -> Measure:
    """Return the name and the meaning of a measure, or of a column of a run's `metrics.csv`.

    Examples:
        >>> describe_measure("val/mask_AP").name, describe_measure("loss/mil").name, describe_measure("lr").name
        ('mask AP', 'MIL loss', 'learning rate')
        >>> describe_measure("weight/projection").name
        'weight of the projection loss'
    """
    kind, _, rest = key.rpartition("/")
    if kind == "loss":
        return Measure(f"{_LOSSES.get(rest, rest.replace('_', ' '))} loss")
    if kind == "weight":
        return Measure(f"weight of the {describe_measure(f'loss/{rest}').name}")
    if rest == "lr" or rest.startswith("lr-"):
        return Measure("learning rate")
    return Measure(*_MEASURES.get(rest, (rest.replace("_", " "),)))

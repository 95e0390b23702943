"""The report on an evaluation: what the page shows beside the metrics, above all the worst images or masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.images import read_image
from boxel.evaluation.boxes import ComparedMasks
from boxel.evaluation.error_types import ERRORS
from boxel.evaluation.scores import DetectionScores, MaskScores, PixelScores, Scores
from boxel.utils.errors import BoxelError
from boxel.viz.report.evaluation_page import write_evaluation_report
from boxel.viz.report.pictures import draw_picture
from boxel.viz.report.render import embed
from boxel.viz.report.training import read_training

_SIDE = 420  # longer side of a picture, in pixels
_MASK_SIDE = 320


def write_report_on(scores: Scores, metrics: Mapping[str, Any], path: str, name: str) -> None:
    """Write the page on what was compared, given its metrics, None for what is undefined."""
    truth = scores.truth
    more: dict[str, Any] = {}
    if isinstance(scores, DetectionScores):
        kind, more = "detections", {"errors": ERRORS}
        cards = _draw_images(scores, metrics["analysis"]["worst_images"])
    elif isinstance(scores, MaskScores):
        kind, more = "masks", {"ious": scores.compared[0], "bins": bin_quality(scores.pred, scores.compared)}
        cards = _draw_masks(scores, metrics["masks"]["worst"])
    else:
        assert isinstance(scores, PixelScores)
        kind, more = "pixels", {"confusion": scores.maps.matrices.sum(0)[:-1, :-1].tolist()}
        cards = _draw_images(scores, metrics["worst_images"])
    run = read_training(name) if Path(name).is_dir() else None
    write_evaluation_report(kind, metrics, cards, path, (name, truth.file or "the ground truth"), more, run)


def draw_image(scores: Sequence[Scores], image: int) -> list[dict[str, str]] | str:
    """Return `truth` and `prediction` of an image for each subject, as addresses; the error if it cannot be read."""
    try:
        pixels = read_image(scores[0].truth.image_path(image))
        drawn = [one.draw(image, pixels, _SIDE) for one in scores]
    except BoxelError as error:
        return str(error)
    return [{name: embed(picture) for name, picture in one.items()} for one in drawn]


def _draw_images(scores: Scores, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    index = {id: image for image, id in enumerate(scores.truth.image_ids)}
    drawn = (draw_image([scores], index[row["image_id"]]) for row in rows)
    return [
        {**row, "pictures": one if isinstance(one, str) else one[0]}
        for row, one in zip(rows, drawn, strict=True)
    ]


def _draw_masks(scores: MaskScores, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Draw each mask beside the true one; the row has the ids of the true one."""
    truth, (_, pred_index, gt_index) = scores.truth, scores.compared
    keys = [(truth.image_ids[truth.image_index[i]], truth.ids[i]) for i in gt_index.tolist()]
    position = {key: k for k, key in reversed([*enumerate(keys)])}
    cards = []
    for row in rows:
        k = position[row["image_id"], row["id"]]
        cards.append({**row, "pictures": _draw_mask(scores, int(gt_index[k]), int(pred_index[k]))})
    return cards


def _draw_mask(scores: MaskScores, true: int, pred: int) -> dict[str, str] | str:
    truth = scores.truth
    try:
        pixels = read_image(_find_image(truth, scores.pred, true, pred))
        size = (pixels.shape[0], pixels.shape[1])
        codes = {"truth": truth.rle(true, size), "mask": scores.pred.rle(pred, size) if pred >= 0 else None}
    except BoxelError as error:
        return str(error)
    box = truth.boxes[true]
    return {name: embed(draw_picture(pixels, box, code, _MASK_SIDE)) for name, code in codes.items()}


def _find_image(truth: Annotations, pred: Annotations, true: int, index: int) -> Path:
    """Return the file of an instance's image: that of the truth, or if it is not there, that of the other dataset."""
    path = truth.image_path(int(truth.image_index[true]))
    if index >= 0 and not path.is_file():
        path = pred.image_path(int(pred.image_index[index]))
    return path


def bin_quality(pred: Annotations, compared: ComparedMasks) -> list[dict[str, float]]:
    """Return the masks by tenths of their quality: `low`, `high`, `count`, and the means `score` and `IoU`."""
    ious, pred_index, _ = compared
    quality = np.where(pred_index >= 0, pred.quality[pred_index], np.nan).astype(np.float64)
    known = (quality >= 0) & (quality <= 1)
    bins: NDArray[np.int64] = np.minimum((quality[known] * 10 + 1e-6).astype(int), 9)
    return [
        {
            "low": k / 10,
            "high": (k + 1) / 10,
            "count": int((bins == k).sum()),
            "score": float(quality[known][bins == k].mean()),
            "IoU": float(ious[known][bins == k].mean()),
        }
        for k in np.unique(bins).tolist()
    ]

"""Metrics of label maps: accuracy and IoU from confusion matrices, over whole images or near true boundaries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import MAX_VALUE, Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import file_stems
from boxel.data.formats.semantic import label_files
from boxel.data.label_maps import (
    IGNORE_INDEX,
    build_class_lookup,
    has_pixel_labels,
    has_pixel_truth,
    label_map_values,
    make_label_map,
    pixel_classes,
    read_label_map,
)
from boxel.data.pairing import pair_images
from boxel.data.windows import open_windows
from boxel.evaluation.tables import format_cell, format_table
from boxel.utils.errors import BoxelError
from boxel.viz.names import describe_measure

if TYPE_CHECKING:
    from boxel.models.exported import ExportedSegmenter
    from boxel.models.semantic.model import Segmenter
    from boxel.models.settings import SemanticInferenceConfig

logger = logging.getLogger(__name__)

TRIMAP_WIDTHS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40)
"""The widths of bands around true boundaries that plots show, in pixels."""


class SemanticMetrics(TypedDict):
    """The metrics of :func:`semantic_metrics`."""

    pixel_accuracy: float
    mean_class_accuracy: float
    mean_iou: float
    per_class: dict[str, float]


class DatasetMetrics(SemanticMetrics, total=False):
    """The metrics of :func:`measure_segmenter`."""

    images: int
    classes: dict[str, dict[str, float]]
    worst_images: list[dict[str, Any]]
    trimap: dict[str, list[float]]


def confusion(gt: NDArray[np.integer], pred: NDArray[np.integer], num_classes: int) -> NDArray[np.int64]:
    """Count how often each class is predicted as each class. The matrices of several images add up.

    Args:
        gt: (H, W) labels in [0, num_classes), or 255 for unlabeled pixels, which do not count.
        pred: (H, W) labels in [0, num_classes).
        num_classes: Number of classes, at most 255, or 256 if the last one is only predicted.

    Returns:
        (num_classes, num_classes) counts of pixels; rows are true classes, columns predicted ones.

    Raises:
        ValueError: There are other labels.

    Examples:
        >>> confusion(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 1]]), 2).tolist()
        [[1, 1], [0, 1]]
    """
    # A table of all pairs of bytes: one pass over the pixels, without a search for ignored ones first.
    pairs = np.bincount((gt.astype(np.intp) << 8 | pred).ravel(), minlength=2**16).reshape(256, 256)
    ignored = pairs[IGNORE_INDEX].sum()
    pairs[IGNORE_INDEX] = 0
    counts = pairs[:num_classes, :num_classes]
    if counts.sum() + ignored < gt.size:
        raise ValueError(f"a label is not in [0, {num_classes}), nor {IGNORE_INDEX}")
    return counts


def semantic_metrics(matrix: NDArray[np.int64], names: Sequence[str]) -> SemanticMetrics:
    """Compute the metrics of semantic segmentation.

    Args:
        matrix: (K, K) of :func:`confusion`, or with one more class at the end for pixels of no class.
        names: K names of the classes.

    Returns:
        `pixel_accuracy`: share of the pixels with the right class; `mean_class_accuracy`: mean over classes of the
        share of their pixels with the right class; `mean_iou`: mean over classes of intersection over union;
        `per_class`: IoU by class name. All in [0, 1]; classes without a pixel to divide by are NaN and left out of
        means.

    Examples:
        >>> metrics = semantic_metrics(np.array([[2, 1], [0, 1]]), ["sky", "road"])
        >>> metrics["pixel_accuracy"], round(metrics["mean_iou"], 3)
        (0.75, 0.583)
    """
    sums = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    hits, true, predicted = (counts[: len(names)] for counts in sums)
    with np.errstate(invalid="ignore"):
        accuracy, iou = hits / true, hits / (true + predicted - hits)
        overall = hits.sum() / true.sum()
    return {
        "pixel_accuracy": float(overall),
        "mean_class_accuracy": _mean_of_known(accuracy),
        "mean_iou": _mean_of_known(iou),
        "per_class": dict(zip(names, iou.tolist(), strict=True)),
    }


def _mean_of_known(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


# ---------------------------------------------------------------- near boundaries


def boundary_distance(gt: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Compute the distance of each pixel's center to the nearest boundary.

    A boundary runs between two pixels with different labels, side by side or one above the other. Unlabeled pixels
    count as a label: Pascal VOC marks boundaries with a rim of them.

    Args:
        gt: (H, W) labels.

    Returns:
        (H, W) float32 in pixels: 0.5 on both sides of a boundary, larger than any image if there is none.

    Examples:
        >>> boundary_distance(np.array([[0, 0, 0, 1, 1]], dtype=np.uint8)).tolist()
        [[2.5, 1.5, 0.5, 0.5, 1.5]]
    """
    import cv2

    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    beside = cv2.morphologyEx(gt, cv2.MORPH_GRADIENT, cross) > 0
    distance: Any = cv2.distanceTransform((~beside).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return distance + np.float32(0.5)


def band_confusions(
    gt: NDArray[np.uint8], pred: NDArray[np.integer], widths: Sequence[int], num_classes: int
) -> NDArray[np.int64]:
    """Split the confusion matrix of an image by the distance of its pixels from true boundaries.

    The first part covers the pixels up to the first width, each other one those from the previous width to its own,
    the last one those beyond all widths. The parts of several images add up.

    Args:
        gt: (H, W) labels, as for :func:`confusion`.
        pred: (H, W) labels, as for :func:`confusion`.
        widths: W widths in pixels on either side of a boundary, ascending.
        num_classes: Number of classes.

    Returns:
        (W + 1, num_classes, num_classes) matrices.

    Raises:
        ValueError: There are other labels.

    Examples:
        >>> gt = np.array([[0, 0, 0, 1, 1]], dtype=np.uint8)
        >>> band_confusions(gt, np.zeros_like(gt), [1], num_classes=2).tolist()
        [[[1, 0], [1, 0]], [[2, 0], [1, 0]]]
    """
    if not widths:  # saves the distances, which take longer than the matrix
        return confusion(gt, pred, num_classes)[None]
    band = np.searchsorted(widths, boundary_distance(gt))
    parts = (band == part for part in range(len(widths) + 1))
    return np.stack([confusion(gt[part], pred[part], num_classes) for part in parts])


def trimap_metrics(
    matrices: NDArray[np.int64], widths: Sequence[int], names: Sequence[str]
) -> dict[str, list[float]]:
    """Compute the mean IoU inside and outside the band around true boundaries, by width of the band.

    Args:
        matrices: (W + 1, K, K), the sum of :func:`band_confusions` over images; or with one more class at the end.
        widths: W widths, as there.
        names: K names of the classes.

    Returns:
        W values each: `width`, in pixels on either side of a boundary; `boundary`, the mean IoU of the pixels at most
        this far from one; `interior`, that of all others. In [0, 1], NaN without such a pixel.

    Examples:
        >>> matrices = np.array([[[1, 0], [1, 0]], [[2, 0], [0, 1]]])
        >>> trimap_metrics(matrices, [1], ["a", "b"])
        {'width': [1], 'boundary': [0.25], 'interior': [1.0]}

    References:
        Dai et al. (BoxSup), ICCV 2015, Section 5, Figure 4.
    """
    band = matrices.cumsum(0)[:-1]
    parts = {"boundary": band, "interior": matrices.sum(0) - band}
    ious = {
        part: [semantic_metrics(matrix, names)["mean_iou"] for matrix in per_width]
        for part, per_width in parts.items()
    }
    return {"width": list(widths), **ious}


# ---------------------------------------------------------------- whole datasets


def measure_segmenter(
    truth: Annotations,
    model: Segmenter | ExportedSegmenter,
    config: SemanticInferenceConfig | None = None,
    trimap: Sequence[int] = (),
    errors: list[str] | None = None,
) -> DatasetMetrics:
    """Evaluate a semantic segmenter on a dataset; each image is decoded once.

    Args:
        truth: Images with label maps or masks. Classes that the model does not know count as background if it has one,
            else they are ignored.
        model: A segmenter in eval mode.
        config: Preprocessing and test-time augmentation. None: as in the training of the model.
        trimap: Widths in pixels of bands around true boundaries in which mean IoU is computed too.
        errors: Gets a message per image that cannot be used; each is also logged as a warning.

    Returns:
        The metrics of :func:`semantic_metrics`; `images`, the number of images; `classes`, by name `share` of the true
        pixels, `iou`, `recall` and `precision`; `worst_images`, up to 24 images with the lowest mean IoU, each with
        `file_name`, `image_id`, `mean_iou` and `pixel_accuracy`; and with widths `trimap`, as of
        :func:`trimap_metrics`.

    Raises:
        BoxelError: The dataset has none of the model's classes, or no image can be used.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.models import build
        >>> truth, model = example_scenes(), build("boxsup", 6, {"backbone": "resnet10t", "weights": "none"})
        >>> model.categories = pixel_classes(truth)
        >>> measure_segmenter(truth, model.eval())["images"]
        1
    """
    return score_segmenter(truth, model, config, trimap, errors).metrics()


def score_segmenter(
    truth: Annotations,
    model: Segmenter | ExportedSegmenter,
    config: SemanticInferenceConfig | None = None,
    trimap: Sequence[int] = (),
    errors: list[str] | None = None,
) -> MapScores:
    """Compare what a segmenter predicts with the truth, image by image; see :func:`measure_segmenter`."""
    from boxel.models.tiles import predict_in_tiles

    config = config or model.configure()

    def predict(image: int) -> NDArray[np.integer]:
        with open_windows(truth.image_path(image), in_parts=config.tile is not None) as pixels:
            return predict_in_tiles(pixels, model.predict_batch, config).labels

    return _score(truth, predict, model.categories, trimap, errors)


def measure_label_maps(
    truth: Annotations, folder: str | Path, trimap: Sequence[int] = (), errors: list[str] | None = None
) -> DatasetMetrics:
    """Evaluate a folder of label maps, e.g. of `boxel predict`, whose values are the category ids of the dataset.

    Args:
        truth: As for :func:`measure_segmenter`.
        folder: Has a PNG or TIFF with the name of each image, see `pair_images`, or has a folder ``labels`` that does.
            Values that are not a class of the dataset are wrong.
        trimap: As for :func:`measure_segmenter`.
        errors: As for :func:`measure_segmenter`.

    Returns:
        As :func:`measure_segmenter`.

    Raises:
        BoxelError: No image can be used, or the category ids cannot be pixel values.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.viz import save_image
        >>> truth = example_scenes()
        >>> save_image(make_label_map(truth, 0), truth.root / "maps/000000.png")
        >>> measure_label_maps(truth, truth.root / "maps")["pixel_accuracy"]
        1.0
    """
    return score_label_maps(truth, folder, trimap, errors).metrics()


def score_label_maps(
    truth: Annotations, folder: str | Path, trimap: Sequence[int] = (), errors: list[str] | None = None
) -> MapScores:
    """Compare label maps with the truth, image by image; see :func:`measure_label_maps`."""
    classes = pixel_classes(truth)
    table = np.full(MAX_VALUE + 1, len(classes), dtype=np.int64)
    table[label_map_values(classes)] = np.arange(len(classes))
    within = Path(folder) / "labels"
    maps = within if within.is_dir() else Path(folder)
    rows = Builder()
    for number, file in enumerate(label_files(maps)):
        rows.add_image(number, file.relative_to(maps).as_posix())
    listed, stems = rows.build(maps, [], maps), file_stems(truth.paths)
    pairs = pair_images(truth, listed)

    def read_labels(image: int) -> NDArray[np.integer]:
        pair = pairs[image]
        file = maps / f"{stems[image]}.png" if pair is None else listed.image_path(pair)
        return table[read_label_map(file)]

    return _score(truth, read_labels, classes, trimap, errors)


def select_measurable(truth: Annotations) -> NDArray[np.intp]:
    """Return the (N,) images in which the class of each pixel is known; raise if no image has a label map or a mask."""
    if not has_pixel_truth(truth).any():
        raise BoxelError(
            f"{truth.file}: none of its {len(truth)} images has a label map or a mask to compare with; add some."
        )
    known = has_pixel_labels(truth)
    if not known.all():
        logger.info("%d of %d images have boxes only and are skipped", (~known).sum(), len(truth))
    return np.flatnonzero(known)


def load_labels(
    truth: Annotations,
    classes: Sequence[Category],
    images: NDArray[np.intp],
    load: Callable[[int], NDArray[Any]],
    errors: list[str] | None = None,
) -> Iterator[tuple[int, NDArray[Any], NDArray[np.uint8]]]:
    """Yield each image, what ``load`` returns for it and its (H, W) true labels; raise if no image can be used."""
    table, used = build_class_lookup(truth, classes), False
    for image in images.tolist():
        try:
            loaded = load(image)
            gt = table[make_label_map(truth, image, loaded.shape[:2])]
        except BoxelError as error:
            logger.warning("skipped: %s", error)
            if errors is not None:
                errors.append(str(error))
            continue
        used = True
        yield image, loaded, gt
    if not used:
        raise BoxelError(f"{truth.file}: none of its {len(truth)} images can be evaluated.")


_MAX_WORST, _PRINTED = 24, 5  # of the worst images


@dataclass(frozen=True)
class MapScores:
    """Label maps compared with the truth.

    Attributes:
        truth: The ground truth.
        classes: The K classes.
        predict: Returns the (H, W) labels that are compared of an image.
        images: (M,) images that are compared.
        counts: (M, 3, K) pixels of each class that are right, true and predicted.
        matrices: (W + 1, K + 1, K + 1), the sum of :func:`band_confusions`; pixels of no class are the last one.
        widths: Widths of the bands around true boundaries.
    """

    truth: Annotations
    classes: Sequence[Category]
    predict: Callable[[int], NDArray[np.integer]]
    images: NDArray[np.int64]
    counts: NDArray[np.int64]
    matrices: NDArray[np.int64]
    widths: Sequence[int]

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return [category.name for category in self.classes]

    def image_scores(self) -> NDArray[np.float64]:
        """Return the (I,) mean IoU of each image of the truth, NaN for one that was not compared."""
        scores = np.full(len(self.truth), np.nan)
        scores[self.images] = mean_ious(self.counts)
        return scores

    def metrics(self) -> DatasetMetrics:
        """Compute the metrics of :func:`measure_segmenter`."""
        ious, total = mean_ious(self.counts), self.counts.sum(axis=0)
        hits, true, predicted = total
        with np.errstate(invalid="ignore"):
            columns = {
                "share": true / true.sum(),
                "iou": hits / (true + predicted - hits),
                "recall": hits / true,
                "precision": hits / predicted,
            }
            accuracy = self.counts[:, 0].sum(axis=1) / self.counts[:, 1].sum(axis=1)
        worst = [int(k) for k in np.argsort(ious, kind="stable") if ious[k] < 1][:_MAX_WORST]
        metrics: DatasetMetrics = {
            "images": len(self.images),
            **semantic_metrics(self.matrices.sum(0), self.names),
            "classes": {
                name: {column: float(values[k]) for column, values in columns.items()}
                for k, name in enumerate(self.names)
            },
            "worst_images": [
                {
                    "file_name": self.truth.paths[self.images[k]],
                    "image_id": self.truth.image_ids[self.images[k]],
                    "mean_iou": float(ious[k]),
                    "pixel_accuracy": float(accuracy[k]),
                }
                for k in worst
            ],
        }
        if self.widths:
            metrics["trimap"] = trimap_metrics(self.matrices, self.widths, self.names)
        return metrics


def mean_ious(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the (M,) mean IoUs over the classes that occur, of (M, 3, K) pixels that are right, true and predicted.

    Examples:
        >>> mean_ious(np.array([[[2, 1, 0], [3, 1, 0], [2, 2, 0]]])).round(3).tolist()
        [0.583]
    """
    hits, true, predicted = np.moveaxis(np.asarray(counts, dtype=np.float64), 1, 0)
    union = true + predicted - hits
    occurs = union > 0
    with np.errstate(invalid="ignore"):
        return (hits / np.where(occurs, union, 1)).sum(axis=1) / occurs.sum(axis=1)


def _score(
    truth: Annotations,
    predict: Callable[[int], NDArray[np.integer]],
    classes: Sequence[Category],
    trimap: Sequence[int],
    errors: list[str] | None,
) -> MapScores:
    """Compare the labels predicted for each image; pixels of no class get one more class at the end."""
    count, widths = len(classes) + 1, sorted(set(trimap))
    matrices = np.zeros((len(widths) + 1, count, count), dtype=np.int64)
    images, counts = [], []
    for image, pred, gt in load_labels(truth, classes, select_measurable(truth), predict, errors):
        bands = band_confusions(gt, pred, widths, count)
        whole = bands.sum(axis=0)
        images.append(image)
        counts.append(np.stack([whole.diagonal(), whole.sum(axis=1), whole.sum(axis=0)])[:, :-1])
        matrices += bands
    return MapScores(truth, classes, predict, np.array(images), np.array(counts), matrices, widths)


def format_semantic(metrics: dict[str, Any]) -> str:
    """Format the metrics of a dataset as text, with a dash for what is undefined."""
    known = [
        [name, *row.values()] for name, row in metrics["classes"].items() if format_cell(row["iou"]) != "-"
    ]
    measures = ("mean_iou", "pixel_accuracy", "mean_class_accuracy")
    lines = [
        format_table([["by class", "share", "IoU", "recall", "precision"], *known]),
        "",
        *(f"{key}: {format_cell(metrics[key])}, the {describe_measure(key).meaning}" for key in measures),
        f"{metrics['images']} images. share: of the true pixels that are of the class; recall: of its pixels that are "
        "found; precision: of the",
        "pixels that are predicted as the class and are of it.",
    ]
    worst = metrics["worst_images"][:_PRINTED]
    lines += ["", "lowest mean IoU:"] * bool(worst)
    lines += [
        f"  {row['file_name']} (image {row['image_id']}): {format_cell(row['mean_iou'])}" for row in worst
    ]
    if "trimap" in metrics:
        rows = zip(*metrics["trimap"].values(), strict=True)
        lines += ["", "Mean IoU within a width of true boundaries, and beyond:"]
        lines.append(format_table([["width", "boundary", "interior"], *rows]))
    return "\n".join(lines)

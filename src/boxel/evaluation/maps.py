"""Label maps of a segmenter, or in a folder, against the true ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import MAX_VALUE, Annotations, Category
from boxel.data.images import read_image
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
from boxel.evaluation.semantic import semantic_figures
from boxel.evaluation.trimap import ring_confusions, trimap_figures
from boxel.models.semantic.inference import (
    SemanticInferenceConfig,
    predict_label_map,
    semantic_inference_config,
)
from boxel.utils.errors import BoxelError


def measure_maps(
    model: Any,
    truth: Annotations,
    looks: SemanticInferenceConfig | None = None,
    report: Callable[[str], None] = print,
    trimap: Sequence[int] = (),
) -> dict[str, Any]:
    """The figures of a segmenter on a set.

    Args:
        model: a :class:`~boxel.models.semantic.model.Segmenter` in eval mode.
        truth: images with label maps or masks; classes that the model does not know are its background, where it has
            one, else ignored.
        looks: how images are shown; as in the model's own training where None.
        report: is told of each image that can't be used, which is left out.
        trimap: widths, in pixels, of bands around true boundaries in which mean IoU is told too.

    Returns:
        As of :func:`~boxel.evaluation.semantic.semantic_figures`; `images`, how many were measured; and where widths
        are given `trimap`, as of :func:`~boxel.evaluation.trimap.trimap_figures`.

    Raises:
        BoxelError: the set has none of the model's classes, or no image can be used.
    """
    looks = looks or semantic_inference_config(model)

    def found(image: int) -> NDArray[np.integer]:
        photo = read_image(truth.image_path(image))
        return predict_label_map(model, photo, looks).labels

    return _figures(found, truth, model.categories, report, trimap)


def measure_folder(
    folder: Path,
    truth: Annotations,
    report: Callable[[str], None] = print,
    trimap: Sequence[int] = (),
) -> dict[str, Any]:
    """The figures of a folder of label maps with the values of the true ones, as `boxel predict` writes them.

    Args:
        folder: has a PNG with the stem of each image; values that are no class of the set's are taken for wrong.
        truth: as of :func:`measure_maps`.
        report: as there.
        trimap: as there.

    Returns:
        As there.

    Raises:
        BoxelError: no image can be used, or the set's ids can't be values.
    """
    classes = pixel_classes(truth)
    table = np.full(MAX_VALUE + 1, len(classes), dtype=np.int64)
    table[label_map_values(classes)] = np.arange(len(classes))

    def found(image: int) -> NDArray[np.integer]:
        return table[read_label_map(folder / f"{Path(truth.paths[image]).stem}.png")]

    return _figures(found, truth, classes, report, trimap)


def measurable(truth: Annotations, report: Callable[[str], None]) -> NDArray[np.intp]:
    """(N,) the images of which the class of each pixel is told.

    Args:
        truth: the set.
        report: is told how many are left out.

    Raises:
        BoxelError: no image has a label map or a mask.
    """
    if not has_pixel_truth(truth).any():
        raise BoxelError(
            f"{truth.file}: not one of its {len(truth)} images has a label map or a mask to be measured against."
        )
    known = has_pixel_labels(truth)
    if not known.all():
        report(f"{(~known).sum()} of {len(truth)} images have boxes only and are left out")
    return np.flatnonzero(known)


def _figures(
    found: Callable[[int], NDArray[np.integer]],
    truth: Annotations,
    classes: Sequence[Category],
    report: Callable[[str], None],
    trimap: Sequence[int],
) -> dict[str, Any]:
    """The figures of what is found in each image, with one more class for what is none of the set's."""
    count, widths = len(classes) + 1, sorted(set(trimap))
    rings, images = np.zeros((len(widths) + 1, count, count), dtype=np.int64), 0
    for labels, true in _pairs(found, truth, build_class_lookup(truth, classes), report):
        rings += ring_confusions(labels, true, widths, count, IGNORE_INDEX)
        images += 1
    if not images:
        raise BoxelError(f"{truth.file}: not one of its {len(truth)} images can be measured.")
    names = [category.name for category in classes]
    figures = {"images": images, **semantic_figures(rings.sum(0), names)}
    return figures | {"trimap": trimap_figures(rings, widths, names)} if widths else figures


def _pairs(
    found: Callable[[int], NDArray[np.integer]],
    truth: Annotations,
    table: NDArray[np.uint8],
    report: Callable[[str], None],
) -> Iterator[tuple[NDArray[np.integer], NDArray[np.uint8]]]:
    """Found and true labels of each image that can be used."""
    for image in measurable(truth, report).tolist():
        try:
            labels = found(image)
            true = table[make_label_map(truth, image, labels.shape)]
        except BoxelError as error:
            report(f"left out: {error}")
        else:
            yield labels, true


def maps_table(figures: dict[str, Any]) -> str:
    """The figures as text, in percent, a dash for what is undefined."""
    width = max(map(len, ["mean", *figures["per_class"]]))
    lines = [f"{'':<{width}}    IoU"]
    lines += [f"{name:<{width}}  {_percent(iou):>5}" for name, iou in figures["per_class"].items()]
    lines += [
        f"{'mean':<{width}}  {_percent(figures['mean_iou']):>5}",
        "",
        f"In percent. {figures['images']} images; pixel accuracy {_percent(figures['pixel_accuracy'])}, mean class "
        f"accuracy {_percent(figures['mean_class_accuracy'])}.",
    ]
    if "trimap" in figures:
        lines += ["", "Mean IoU within a width of true boundaries, and beyond:", "width  boundary  interior"]
        lines += [
            f"{pixels:>5}  {_percent(boundary):>8}  {_percent(interior):>8}"
            for pixels, boundary, interior in zip(*figures["trimap"].values(), strict=True)
        ]
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f}"

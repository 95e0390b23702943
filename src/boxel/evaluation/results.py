"""Detections in the COCO results format, and the ground truth that they are compared with.

A result is a dict of ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation`` or both: the box xywh in
pixels, the segmentation a compressed run-length code (https://cocodataset.org/#format-results). Results of
`boxel predict` also have the image's ``file_name``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.checks.masks import Verdict, describe_rectangles, judge_masks
from boxel.masks.rle import Rle, to_rle
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

Result: TypeAlias = dict[str, Any]
"""One detection, as in the COCO results format."""


def to_results(data: Annotations) -> list[Result]:
    """Turn a dataset into detections, e.g. to compute the AP of its masks.

    Args:
        data: Each instance that is not a crowd becomes a result, with its quality as the score (1 if unknown).

    Raises:
        BoxelError: A mask cannot be read.

    Examples:
        >>> from boxel.data import example_scenes
        >>> data = example_scenes()
        >>> sorted(to_results(data)[0])
        ['bbox', 'category_id', 'image_id', 'score', 'segmentation']
    """
    results: list[Result] = []
    for i in np.flatnonzero(~data.iscrowd).tolist():
        x0, y0, x1, y1 = data.boxes[i].tolist()
        result = {
            "image_id": data.image_ids[data.image_index[i]],
            "category_id": data.categories[data.labels[i]].id,
            "score": float(np.nan_to_num(data.quality[i], nan=1.0)),
            "bbox": [x0, y0, x1 - x0, y1 - y0],
        }
        mask = data.rle(i)
        results.append(result if mask is None else {**result, "segmentation": mask})
    return results


def has_masks(results: Sequence[Result]) -> bool:
    """Return whether the results have masks: whether the first has (:func:`match_results` makes the others alike)."""
    return not results or results[0].get("segmentation") is not None


def get_boxes(results: Sequence[Result]) -> NDArray[np.float64]:
    """Return the (N, 4) float64 xywh boxes of results; a result without a box has the tight box of its mask."""
    boxes = np.zeros((len(results), 4))
    for position, result in enumerate(results):
        box = result.get("bbox")
        boxes[position] = coco_mask.toBbox(result["segmentation"]) if box is None else box
    return boxes


def fill_box(box: Sequence[float], height: int, width: int) -> Rle:
    """Return the mask of a filled xywh box as pycocotools rasterizes it."""
    x, y, w, h = box
    # Clipped, since pycocotools walks along the whole outline, also where it is far from the image.
    left, right = np.nan_to_num([x, x + w]).clip(-1, width + 1)
    top, bottom = np.nan_to_num([y, y + h]).clip(-1, height + 1)
    return to_rle([[left, top, left, bottom, right, bottom, right, top]], height, width)


def sizes_by_id(truth: Annotations) -> dict[int | str, list[int]]:
    """Return the height and the width of each image by its id."""
    sizes = np.stack([truth.heights, truth.widths], axis=1).tolist()
    return dict(zip(truth.image_ids, sizes, strict=True))


def group_by_image(truth: Annotations, results: Sequence[Result]) -> dict[int, list[int]]:
    """Return the positions of the results of each image, by index of the image, in the order of the images."""
    index = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    groups: dict[int, list[int]] = {}
    for position, result in enumerate(results):
        groups.setdefault(index[result["image_id"]], []).append(position)
    return dict(sorted(groups.items()))


# ---------------------------------------------------------------- ground truth


def filter_categories(
    truth: Annotations,
    results: Sequence[Result],
    categories: Sequence[str] | None = None,
    class_agnostic: bool = False,
) -> tuple[Annotations, list[Result]]:
    """Select what to compare: some categories, or objects of any category (BoxInst, Tables 6 and 7: unseen classes).

    Args:
        truth: The ground truth.
        results: Detections.
        categories: Names of the categories to keep. None: all.
        class_agnostic: Merge all categories. Detections carry no class then, so all are kept, and instances of other
            categories become crowds: to detect one is neither right nor wrong.

    Returns:
        Ground truth and results for any metric.

    Raises:
        BoxelError: A name is not a category of the ground truth.

    Examples:
        >>> from boxel.data import example_scenes
        >>> truth = example_scenes()
        >>> merged, results = filter_categories(truth, to_results(truth), class_agnostic=True)
        >>> [category.name for category in merged.categories]
        ['object']
    """
    chosen = truth if categories is None else truth.select_categories(categories)
    if class_agnostic:
        others = [k for k, category in enumerate(truth.categories) if category not in chosen.categories]
        iscrowd = truth.iscrowd | np.isin(truth.labels, others)
        merged = replace(truth, iscrowd=iscrowd).class_agnostic()
        return merged, [{**result, "category_id": merged.categories[0].id} for result in results]
    ids = {category.id for category in chosen.categories}
    return chosen, [result for result in results if categories is None or result["category_id"] in ids]


def read_masks(truth: Annotations) -> list[Rle | None]:
    """Return the mask of each instance; None if it has only a box, or a mask that cannot be read, which is logged."""
    masks: list[Rle | None] = []
    errors = []
    for instance, has_mask in enumerate(truth.has_mask.tolist()):
        try:
            masks.append(truth.rle(instance) if has_mask else None)
        except BoxelError as error:
            masks.append(None)
            errors.append(str(error))
    if errors:
        message = "%d true masks cannot be read, and only their boxes are used; the first: %s"
        logger.warning(message, len(errors), errors[0])
    return masks


def with_sound_masks(truth: Annotations) -> Annotations:
    """Return the ground truth with codes of its masks, and with all areas; see :func:`drop_unsound_masks`."""
    truth = drop_unsound_masks(truth)
    masks = np.full(len(truth.labels), None, dtype=object)
    masks[:] = [None if mask is None else msgspec.json.encode(mask) for mask in read_masks(truth)]
    areas = np.array([coco_area(truth, instance) for instance in range(len(masks))])
    return replace(truth, segmentations=masks, areas=areas)


def drop_unsound_masks(data: Annotations, role: str = "true masks") -> Annotations:
    """Drop trusted masks that are none: unreadable, empty, outside of their image, or of another size; keep the boxes.

    A mask that is merely its filled box stays, as in pycocotools. All of these are reported, and also if every mask is
    a rectangle; ``role`` is what messages call the masks.
    """
    judgment, source = judge_masks(data), data.file or "the ground truth"
    filled = data.has_mask & (judgment.verdicts == Verdict.FILLED_BOX)
    bad = data.has_mask & judgment.bad & ~filled
    total = int(data.has_mask.sum())
    if bad.any():
        message = "%s: %d of %d %s are not used as masks, only their boxes: %s."
        logger.warning(message, source, bad.sum(), total, role, judgment.describe(data.ids, bad))
    rectangles = describe_rectangles(data, judgment)
    if rectangles:
        logger.warning("%s: %s: %s.", source, role, rectangles)
    elif filled.any():
        message = "%s: %d of %d %s are %s; they are compared as they are."
        described = judgment.describe(data.ids, filled).split(" ", 1)[1]
        logger.warning(message, source, filled.sum(), total, role, described)
    if not bad.any():
        return data
    return replace(data, segmentations=np.where(bad, np.array(None), data.segmentations))


def coco_area(truth: Annotations, instance: int) -> float:
    """Return the area of an instance as COCO counts it; that of the box if its mask cannot be read."""
    try:
        return truth.area(instance)
    except (BoxelError, ValueError):  # reported where masks are read
        return float(np.prod(truth.boxes[instance, 2:] - truth.boxes[instance, :2]))


def fill_in_sizes(truth: Annotations, results: Sequence[Result] = (), required: bool = True) -> Annotations:
    """Return the ground truth with sizes that its file omits (0) read from image files, else from run-length codes.

    If sizes are ``required``, an unknown one of an image with an instance or a result is a `BoxelError`.
    """
    unknown = np.flatnonzero((truth.widths <= 0) | (truth.heights <= 0))
    if not len(unknown):
        return truth
    codes = {result["image_id"]: result.get("segmentation") for result in results}
    widths, heights = truth.widths.copy(), truth.heights.copy()
    for image in unknown.tolist():
        image_id, instances = truth.image_ids[image], truth.instances_in(image)
        code, size = codes.get(image_id), truth.image_size(image)
        if 0 in size:
            size = _size_of_first_code(truth, instances) or size
        if 0 in size and isinstance(code, dict):
            size = tuple(code["size"][::-1])
        if required and 0 in size and (len(instances) or image_id in codes):
            raise BoxelError(
                f"{truth.file or 'the ground truth'}: the size of image {image_id}, which masks need, is unknown; set "
                f"`images` to the folder of its file ({truth.image_path(image)}), or add width and height."
            )
        widths[image], heights[image] = size
    return replace(truth, widths=widths, heights=heights)


_Pixels = Annotated[int, msgspec.Meta(gt=0, lt=2**31)]


class _Size(msgspec.Struct):
    size: tuple[_Pixels, _Pixels]


def _size_of_first_code(truth: Annotations, instances: NDArray[np.int64]) -> tuple[int, int] | None:
    """Return (width, height) of the first run-length code among the masks of some instances."""
    for instance in instances:
        # Polygons have no size, and unreadable masks are reported where they are used.
        with contextlib.suppress(msgspec.MsgspecError, RecursionError):
            return msgspec.json.decode(truth.segmentations[instance] or b"", type=_Size).size[::-1]
    return None

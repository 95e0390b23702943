"""Detections in the COCO results format, and the ground truth that they are compared with.

A result is a dict of ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation`` or both: the box xywh in
pixels, the segmentation a compressed run-length code (https://cocodataset.org/#format-results). Results of
`boxel predict` also have the image's ``file_name``.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.data.checks.mask_shapes import measure_codes
from boxel.data.checks.masks import Verdict, describe_rectangles, judge_masks
from boxel.masks.rle import Rle, to_rle
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

Result: TypeAlias = dict[str, Any]
"""One detection, as in the COCO results format."""

_CHUNK = 512  # masks that are checked together
_MEASURED = 128  # masks that are measured together; pycocotools fails for more than 255


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
    boxes = (
        result["bbox"] if result.get("bbox") is not None else coco_mask.toBbox(result["segmentation"])
        for result in results
    )
    numbers = itertools.chain.from_iterable(boxes)
    return np.fromiter(numbers, dtype=np.float64, count=4 * len(results)).reshape(-1, 4)


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


def read_masks(truth: Annotations, judged: bool = False) -> list[Rle | None]:
    """Return the mask of each instance; None if it has only a box, or a mask that cannot be read, which is logged.

    If the masks are ``judged``, i.e. what `drop_unsound_masks` leaves, they are not checked again.
    """
    masks: list[Rle | None] = [None] * len(truth.labels)
    errors = []
    sizes = np.stack([truth.heights, truth.widths], axis=1)
    masked = np.flatnonzero(truth.has_mask)
    written = map(_decode, truth.segmentations[masked])
    codes = (
        (code if _is_compressed(code) else None for code in written) if judged else find_sound_codes(written)
    )
    for instance, code in zip(masked.tolist(), codes, strict=True):
        try:
            known = code and code["size"] == sizes[truth.image_index[instance]].tolist()
            masks[instance] = code if known else truth.rle(instance)
        except BoxelError as error:
            errors.append(str(error))
    if errors:
        message = "%d true masks cannot be read, and only their boxes are used; the first: %s"
        logger.warning(message, len(errors), errors[0])
    return masks


def _decode(segmentation: bytes) -> Any:
    """Return a run-length code as it is written; None for anything else, which polygons are first of all."""
    if segmentation.startswith(b"["):
        return None
    with contextlib.suppress(msgspec.MsgspecError, RecursionError):
        return msgspec.json.decode(segmentation)
    return None


def find_sound_codes(segmentations: Iterable[Any]) -> Iterator[Rle | None]:
    """Yield the run-length codes that are compressed and fill their image, and None for all else.

    They are checked many at once, several times faster than one by one.

    Examples:
        >>> list(find_sound_codes([{"size": [2, 2], "counts": "0120"}, {"size": [2, 2], "counts": "01"}, [[0, 0, 9]]]))
        [{'size': [2, 2], 'counts': '0120'}, None, None]
    """
    remaining = iter(segmentations)
    while some := list(itertools.islice(remaining, _CHUNK)):
        sound: list[Rle | None] = [None] * len(some)
        places = [k for k, segmentation in enumerate(some) if _is_compressed(segmentation)]
        texts, sizes = ([some[k][field] for k in places] for field in ("counts", "size"))
        for k in itertools.compress(places, measure_codes(texts, sizes, with_boxes=False).sound):
            sound[k] = {"size": some[k]["size"], "counts": some[k]["counts"]}
        yield from sound


def _is_compressed(segmentation: Any) -> bool:
    """Return whether this looks like a compressed run-length code, of plain types."""
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("counts"), str):
        return False
    size = segmentation.get("size")
    return isinstance(size, list) and [type(side) for side in size] == [int, int] and min(size) > 0


def with_sound_masks(truth: Annotations) -> tuple[Annotations, list[Rle | None]]:
    """Return the ground truth with all areas and only sound masks (:func:`drop_unsound_masks`), and its masks."""
    truth = drop_unsound_masks(truth)
    masks = read_masks(truth, judged=True)
    sound = truth.keep_masks([mask is not None for mask in masks])
    return replace(sound, areas=coco_areas(truth)), masks


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


def coco_areas(truth: Annotations) -> NDArray[np.float64]:
    """Return the (N,) areas of instances as COCO counts them; that of the box if a mask cannot be read."""
    areas = truth.areas.copy()
    for instance in np.flatnonzero(~np.isfinite(areas)).tolist():
        try:
            areas[instance] = truth.area(instance)
        except (BoxelError, ValueError):  # reported where masks are read
            areas[instance] = np.prod(truth.boxes[instance, 2:] - truth.boxes[instance, :2])
    return areas


def code_areas(codes: Sequence[Rle]) -> NDArray[np.float64]:
    """Return the (N,) areas of masks in pixels."""
    parts = [coco_mask.area(codes[k : k + _MEASURED]) for k in range(0, len(codes), _MEASURED)]
    return np.concatenate([np.zeros(0), *parts])


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

"""Detections in the COCO results format: read, checked and looked up.

A result is a dict of ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation`` or both: the
box xywh in pixels, the segmentation a compressed run-length code (https://cocodataset.org/#format-results).
Those of `boxel predict` have the image's ``file_name`` too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations
from boxel.masks.rle import to_rle
from boxel.utils.errors import BoxelError

Result: TypeAlias = dict[str, Any]
"""One detection as the COCO results format has it."""


class _Code(msgspec.Struct):
    size: list[int]
    counts: str | list[int]


class _Row(msgspec.Struct, omit_defaults=True):
    image_id: int | str
    category_id: int
    score: float
    bbox: list[float] | None = None
    segmentation: _Code | None = None
    file_name: str | None = None


def read_results(path: str | Path) -> list[Result]:
    """The detections of a COCO results file.

    Args:
        path: a JSON list of results.

    Raises:
        BoxelError: the file is absent or not such a list, or a result lacks a field.
    """
    try:
        rows = msgspec.json.decode(Path(path).read_bytes(), type=list[_Row])
    except OSError as error:
        raise BoxelError(f"{path}: the results can't be read ({error.strerror}); check the path.") from error
    except msgspec.MsgspecError as error:
        raise BoxelError(
            f"{path}: not a COCO results file ({error}); it should be a JSON list of objects with image_id, "
            "category_id, a finite score, and bbox or segmentation."
        ) from error
    results: list[Result] = msgspec.to_builtins(rows)
    for position, result in enumerate(results):
        where = f"{path}: result {position} (image {result['image_id']})"
        if "bbox" not in result and "segmentation" not in result:
            raise BoxelError(f"{where} has neither bbox nor segmentation; give one.")
        if "segmentation" in result:
            try:
                result["segmentation"] = to_rle(result["segmentation"], *result["segmentation"]["size"])
            except Exception as error:  # pycocotools raises bare Exception and TypeError too
                raise BoxelError(
                    f"{where} has a mask that can't be read ({error}); write it as pycocotools does."
                ) from error
    return results


def with_ids_of(truth: Annotations, results: Sequence[Result]) -> list[Result]:
    """The results under the image ids of the truth.

    `boxel predict` knows image files and no annotations, so that its ids are made from file names. Where each
    result has a `file_name`, and each is the name (without folders) of exactly one image of the truth, they tell
    the images; otherwise the results' own ids do.

    Args:
        truth: what the results are to be compared with.
        results: detections.
    """
    names = [PurePath(path).name for path in truth.paths]
    count = Counter(names)
    id_of = {name: id for name, id in zip(names, truth.image_ids, strict=True) if name and count[name] == 1}
    theirs = [PurePath(result.get("file_name") or "").name for result in results]
    if not all(name in id_of for name in theirs):
        return list(results)
    return [{**result, "image_id": id_of[name]} for result, name in zip(results, theirs, strict=True)]


def check_results(
    results: Sequence[Result], truth: Annotations, class_agnostic: bool = False, file: str = "results"
) -> None:
    """Raise an error where results can't be compared with this truth.

    Results of categories that the truth doesn't have are no error (they are left out, as pycocotools does),
    unless all of them are.

    Args:
        results: detections.
        truth: what they are to be compared with.
        class_agnostic: categories are not looked at.
        file: where the results come from, for the message.

    Raises:
        BoxelError: an image the truth doesn't have, a score or box that is not finite, masks for only some of
            the results, a mask of another size than its image, or not one known category.
    """
    index = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    with_masks = has_masks(results)
    for position, result in enumerate(results):
        where = f"{file}: result {position} (image {result['image_id']})"
        if result["image_id"] not in index:
            raise BoxelError(
                f"{where} is of an image that {truth.file or 'the truth'} doesn't have; evaluate against the "
                "annotations of the images predicted on."
            )
        box = result.get("bbox")
        if not math.isfinite(result["score"]):
            raise BoxelError(f"{where} has the score {result['score']}; leave it out or give a finite score.")
        if box is not None and not (len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) >= 0):
            raise BoxelError(
                f"{where} has the box {list(box)}; boxes are finite x, y, width, height in pixels."
            )
        segmentation = result.get("segmentation")
        if (segmentation is not None) != with_masks:
            lacks = "no segmentation" if with_masks else "a segmentation"
            raise BoxelError(f"{where} has {lacks}, unlike the first; give every result one, or none.")
        i = index[result["image_id"]]
        size = [int(truth.heights[i]), int(truth.widths[i])]
        if segmentation is not None and 0 not in size and list(segmentation["size"]) != size:
            raise BoxelError(
                f"{where} has a mask of {list(segmentation['size'])} (height, width) in an image of {size}; "
                "predict on the image the truth was drawn on."
            )
    known = {category.id for category in truth.categories}
    if results and not class_agnostic and not any(result["category_id"] in known for result in results):
        raise BoxelError(
            f"{file}: none of the results is of a category of {truth.file or 'the truth'} "
            f"({', '.join(map(str, sorted(known)[:10]))}); map the category ids, or evaluate with --class-agnostic."
        )


def has_masks(results: Sequence[Result]) -> bool:
    """Whether the results carry masks (the first is asked; `check_results` holds the others to it)."""
    return not results or results[0].get("segmentation") is not None


def restrict(
    results: Sequence[Result],
    truth: Annotations,
    categories: Sequence[str] | None,
    class_agnostic: bool = False,
) -> tuple[list[Result], Annotations]:
    """Results and truth of the named categories only, as in BoxInst's Tables 6 and 7 (unseen classes).

    Args:
        results: detections.
        truth: what they are compared with.
        categories: names; None keeps everything.
        class_agnostic: all classes become one. What was found tells no class then, so all results stay, and the
            instances of other categories are ignored as crowds are: finding one is neither right nor wrong.

    Raises:
        BoxelError: a name is not a category of the truth.
    """
    if categories is None:
        return list(results), truth.class_agnostic() if class_agnostic else truth
    chosen = truth.select_categories(categories)
    known = {category.id for category in chosen.categories}
    if class_agnostic:
        labels = [label for label, category in enumerate(truth.categories) if category.id in known]
        own = np.isin(truth.labels, labels)
        return list(results), replace(truth, iscrowd=truth.iscrowd | ~own).class_agnostic()
    return [result for result in results if result["category_id"] in known], chosen


def result_boxes(results: Sequence[Result]) -> NDArray[np.float64]:
    """(N, 4) float64 xywh boxes of results; where one has no box, the tight box of its mask."""
    boxes = np.zeros((len(results), 4))
    for position, result in enumerate(results):
        box = result.get("bbox")
        boxes[position] = coco_mask.toBbox(result["segmentation"]) if box is None else box
    return boxes


def by_image(results: Sequence[Result], truth: Annotations) -> dict[int, list[int]]:
    """Positions of the results of each image, by the index of the image in `truth`, in its order."""
    index = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    groups: dict[int, list[int]] = {}
    for position, result in enumerate(results):
        groups.setdefault(index[result["image_id"]], []).append(position)
    return dict(sorted(groups.items()))

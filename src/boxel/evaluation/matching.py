"""Find the image and the category of the ground truth that each detection belongs to.

The program that writes detections often sees image files but no annotations, so its ids are its own. File names decide
where there are any; ids only where no name contradicts them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.image_names import ImageNames, find_stem
from boxel.data.sources import find_images
from boxel.evaluation.causes import explain_categories, mean_best_iou
from boxel.evaluation.reading import report_left_out
from boxel.evaluation.results import Result, fill_in_sizes, get_boxes, sizes_by_id
from boxel.masks.rle import encode, to_rle
from boxel.utils.errors import BoxelError, one_line

logger = logging.getLogger(__name__)


def match_results(
    truth: Annotations,
    results: Sequence[Result],
    class_agnostic: bool = False,
    file: str = "results",
    positions: Sequence[int] | None = None,
) -> tuple[Annotations, list[Result]]:
    """Return ground truth and detections that can be compared: under the same ids, and with masks of the right size.

    An image is found by the `file_name` of a result, else by its `image_id`: an id of the ground truth, or the name of
    a file with or without its suffix. A category is found by `category_name`, else by `category_id`, which may be a
    name too. Results that cannot be compared are left out and reported once. A result without a mask among others with
    masks counts as an empty mask. Results of categories that the ground truth lacks stay, and are ignored by all
    metrics, as in pycocotools.

    Args:
        truth: The ground truth.
        results: Detections in the COCO results format.
        class_agnostic: Ignore categories.
        file: Where the results come from, for messages.
        positions: Where each result stands in its file, for messages. None: in order.

    Returns:
        The ground truth with the sizes of its images where they can be found, and the results.

    Raises:
        BoxelError: None of the results is of an image of the ground truth, or of one of its categories, or none can be
            used.

    Examples:
        >>> from boxel.data import example_scenes
        >>> truth = example_scenes()
        >>> row = {"image_id": "000000", "category_id": truth.categories[0].name, "score": 1, "bbox": [0, 0, 8, 8]}
        >>> match_results(truth, [row])[1][0]["image_id"] == truth.image_ids[0]
        True
    """
    positions = range(len(results)) if positions is None else positions
    images = _match_images(truth, results, file, positions)
    known = [k for k, image_id in enumerate(images) if image_id is not None]
    matched = [_with(results[k], "image_id", images[k]) for k in known]
    if not class_agnostic:
        matched = _match_categories(truth, matched, file)
    truth = fill_in_sizes(truth, matched, required=False)
    return truth, _with_even_masks(truth, matched, file, [positions[k] for k in known])


def _with(result: Result, field: str, value: Any) -> Result:
    """Return a result with the value of a field: itself if it has that value already."""
    return result if result.get(field) == value else {**result, field: value}


# ---------------------------------------------------------------- images


def _match_images(
    truth: Annotations, results: Sequence[Result], file: str, positions: Sequence[int]
) -> list[int | str | None]:
    """Return the image id of each result in the ground truth; None if it is of none, which is reported."""
    names = ImageNames(truth)
    source = (truth.file or "the ground truth") + (" (its split val)" if set(truth.splits) == {"val"} else "")
    cache: dict[tuple[Any, Any], int | None] = {}
    for image_id, name in dict.fromkeys((r["image_id"], r.get("file_name")) for r in results):
        image = names.find_id(image_id) if name is None else names.find_name(name, image_id)
        own = names.by_id.get(image_id)
        if image is None and own is not None and not truth.paths[own]:
            image = own  # the ground truth states no file that could contradict
        cache[image_id, name] = image
    cache |= _find_by_numbers(names, cache, results, file)
    found = [cache[r["image_id"], r.get("file_name")] for r in results]
    _report_other_ids(names, cache, file)
    unknown = [k for k, image in enumerate(found) if image is None]
    if unknown:
        count, reason = len(results), _why_unknown(names, results[unknown[0]], source)
        if len(unknown) == count:
            raise BoxelError(f"{file}: none of the {count} results is of an image of {source}: {reason}")
        message = "%s: %d of %d results are of no image of %s and are left out, the first: result %d, %s"
        logger.warning(message, file, len(unknown), count, source, positions[unknown[0]], reason)
    return [None if image is None else truth.image_ids[image] for image in found]


def _report_other_ids(names: ImageNames, cache: Mapping[tuple[Any, Any], int | None], file: str) -> None:
    """Log how many ids stand for another file in the ground truth than the file names that decide."""
    data = names.data
    other = [
        (image_id, name)
        for (image_id, name), image in cache.items()
        if image is not None and name is not None and names.by_id.get(image_id, image) != image
    ]
    if other:
        image_id, name = other[0]
        own, source = data.paths[names.by_id[image_id]], data.file or "the ground truth"
        message = "%s: the ids of %d images are of other files in %s, and file names decide; the first: %s, %s and %s"
        logger.info(message, file, len(other), source, image_id, name, own)


def _why_unknown(names: ImageNames, result: Result, source: str) -> str:
    """Return why the image of a result is unknown, and what to do, as the rest of a sentence."""
    image_id, name = result["image_id"], result.get("file_name")
    own = names.by_id.get(image_id)
    if name is not None and own is not None:
        return (
            f"image {image_id} is {name} in the results and {names.data.paths[own]} in {source}; evaluate against the "
            "annotations of the same files, or remove `file_name` from the results if only the names differ."
        )
    shown = f"image {image_id}" + (f" ({name})" if name is not None else "")
    if len(names.data):
        shown += f"; its first image is {names.data.image_ids[0]} ({names.data.paths[0]})"
    return f"it lacks {shown}; evaluate against the annotations of the images predicted on."


def _find_by_numbers(
    names: ImageNames, cache: Mapping[tuple[Any, Any], int | None], results: Sequence[Result], file: str
) -> dict[tuple[Any, Any], int | None]:
    """Return the images of ids that are the numbers in file names, and not ids of the ground truth; else nothing.

    Both are usual, and often each number stands for some image either way. Then the boxes decide.
    """
    by_id = {key: image for key, image in cache.items() if key[1] is None and isinstance(key[0], int)}
    by_number = {key: names.numbers.get(key[0]) for key in by_id}
    if all(by_number[key] in (image, None) for key, image in by_id.items()):
        return {}
    unnamed = [r for r in results if r.get("file_name") is None and isinstance(r["image_id"], int)]
    fit_id, fit_number = (
        mean_best_iou(names.data, unnamed, [images[r["image_id"], None] for r in unnamed])
        for images in (by_id, by_number)
    )
    count_id, count_number = (
        sum(image is not None for image in images.values()) for images in (by_id, by_number)
    )
    if fit_number > fit_id + 0.05 or (fit_number >= fit_id and count_number > count_id):
        source = names.data.file or "the ground truth"
        message = "%s: image ids are taken for numbers of files, since they fit the boxes of %s better than its ids."
        logger.warning(message, file, source)
        return by_number
    return {}


# ---------------------------------------------------------------- categories


def _match_categories(truth: Annotations, results: Sequence[Result], file: str) -> list[Result]:
    """Return the results under the category ids of the ground truth; those of other categories are reported."""
    ids = {category.id for category in truth.categories}
    counts = Counter(category.name for category in truth.categories)
    by_name = {c.name: c.id for c in truth.categories if counts[c.name] == 1}
    by_name = {name.lower(): id for name, id in by_name.items()} | by_name
    matched, foreign = [], Counter[Any]()
    for result in results:
        given, name = result["category_id"], result.get("category_name")
        if name is not None:
            named = by_name.get(name, by_name.get(name.lower()))
            id = given if named is None and counts[name] else named
        else:
            id = given if given in ids else by_name.get(given, by_name.get(str(given).lower()))
        if id not in ids:
            shown = given if name is None else name
            foreign[shown] += 1
            id = given if given not in ids else str(shown)  # not the id of another category
        matched.append(_with(result, "category_id", id))
    if not foreign:
        return matched
    source = truth.file or "the ground truth"
    shown = ", ".join(map(str, list(foreign)[:10]))
    if sum(foreign.values()) == len(matched):
        has = ", ".join(f"{category.id} ({category.name})" for category in truth.categories[:10])
        why = explain_categories(truth, matched) or "map the category ids, or set `class_agnostic`"
        if any(result["category_id"] in ids for result in results):
            why = "remove `category_name` from the results if only the names differ, or set `class_agnostic`"
        raise BoxelError(
            f"{file}: none of the results has a category of {source}: they have {shown}, not {has}; {why}."
        )
    message = "%s: %d of %d results are of categories that %s lacks (%s), and are left out."
    logger.warning(message, file, sum(foreign.values()), len(matched), source, shown)
    return matched


# ---------------------------------------------------------------- masks


def _with_even_masks(
    truth: Annotations, results: Sequence[Result], file: str, positions: Sequence[int]
) -> list[Result]:
    """Return the results with codes as masks, all or none; those with masks of another size are left out."""
    if not any(result.get("segmentation") is not None for result in results):
        return list(results)
    sizes = sizes_by_id(truth)
    kept, problems, empty = list[Result](), list[str](), 0
    for position, result in zip(positions, results, strict=True):
        size, mask = sizes[result["image_id"]], result.get("segmentation")
        try:
            if mask is None:
                empty += 1
                mask = encode(np.zeros(size, dtype=bool))
            elif isinstance(mask, Mapping):
                if 0 not in size and list(mask["size"]) != size:
                    raise ValueError(_describe_size(list(mask["size"]), size))
            elif 0 in size:
                raise ValueError("has polygons, but the size of its image is unknown")
            else:
                mask = to_rle(mask, *size)
        except ValueError as error:
            problems.append(f"result {position} (image {result['image_id']}) {one_line(error, 200)}")
            continue
        kept.append(_with(result, "segmentation", mask))
    if problems and not kept:
        raise BoxelError(f"{file}: none of the {len(results)} results can be used: {problems[0]}.")
    report_left_out(problems, len(results), file)
    if empty:
        message = "%s: %d of %d results have no mask, unlike the others; they count as empty masks."
        logger.warning(message, file, empty, len(results))
    return kept


def _describe_size(found: list[int], size: list[int]) -> str:
    """Return the sentence on a mask that is of another size than its image."""
    what = f"has a mask of {found} (height, width) in an image of {size}"
    if found == size[::-1]:
        return f"{what}: its height and width are swapped, e.g. since the image was not turned as its EXIF states"
    return f"{what}; predict on the annotated image itself, or scale the masks to it"


# ---------------------------------------------------------------- to a dataset


def to_annotations(
    results: Sequence[Result], images: str | Path | Annotations, file: str = "results"
) -> Annotations:
    """Turn detections into a dataset, e.g. to draw them; the inverse of :func:`~boxel.evaluation.to_results`.

    Args:
        results: Detections in the COCO results format; their scores become the quality.
        images: The dataset or the folder of images that they belong to, found as by :func:`match_results`; in a folder,
            an `image_id` is the name of a file without its suffix, as a number or as text.
        file: Where the results come from, for messages.

    Returns:
        The images that have detections. Categories that ``images`` does not name are named by their ids.

    Raises:
        BoxelError: None of the results is of one of the images.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from boxel.evaluation import to_results
        >>> data = example_scenes()
        >>> to_results(to_annotations(to_results(data), data)) == to_results(data)
        True
    """
    known = images if isinstance(images, Annotations) else _list_images(images)
    data, matched = match_results(known, results, class_agnostic=True, file=file)
    categories = _name_categories(matched, data.categories)
    label = {category: k for k, category in enumerate(dict.fromkeys(categories.values()))}
    number = {image_id: image for image, image_id in enumerate(data.image_ids)}
    rows, index = Builder(), dict[int, int]()
    for position, (result, box) in enumerate(zip(matched, get_boxes(matched).tolist(), strict=True), start=1):
        image = number[result["image_id"]]
        if image not in index:
            size = int(data.widths[image]), int(data.heights[image])
            index[image] = rows.add_image(data.image_ids[image], str(data.image_path(image)), *size)
        mask = result.get("segmentation")
        rows.add(
            *(position, index[image], label[categories[result["category_id"]]]),
            [box[0], box[1], box[0] + box[2], box[1] + box[3]],
            None if mask is None else msgspec.json.encode(mask),
            quality=result["score"],
        )
    return rows.build(Path(), list(label), Path())


def _name_categories(results: Sequence[Result], known: Sequence[Category]) -> dict[int | str, Category]:
    """Return the category of each id or name that results have, in the order of the ids."""
    names = {category.name: category for category in known}
    found: dict[int | str, Category] = {category.id: category for category in known}
    ids = [category.id for category in known]
    free = max([*ids, *(r["category_id"] for r in results if isinstance(r["category_id"], int))], default=0)
    for key in dict.fromkeys(result["category_id"] for result in results):
        if key not in found and isinstance(key, int):
            found[key] = Category(key, f"category {key}")
        elif key not in found:
            free += 1
            found[key] = names.get(key) or Category(free, key)
    used = {result["category_id"] for result in results}
    return dict(sorted(((k, c) for k, c in found.items() if k in used), key=lambda item: item[1].id))


def _list_images(folder: str | Path) -> Annotations:
    """Return the images of a folder as a dataset without instances; their ids are the names of their files."""
    rows, ids = Builder(), dict[int | str, Path]()
    for path in find_images(folder):
        stem = find_stem(path.name)
        number = int(stem) if stem.isdecimal() else stem
        ids[str(path) if number in ids else number] = path
    for id, path in ids.items():
        rows.add_image(id, str(path))
    return rows.build(Path(), [], Path(folder))

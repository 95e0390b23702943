"""Detections in the COCO results format, and the ground truth that they are compared with.

A result is a dict of ``image_id``, ``category_id``, ``score`` and ``bbox`` or ``segmentation`` or both: the box xywh in
pixels, the segmentation a compressed run-length code (https://cocodataset.org/#format-results). Results of
`boxel predict` also have the image's ``file_name``.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.sources import find_images
from boxel.masks.rle import Rle, to_rle
from boxel.utils.errors import BoxelError, one_line

logger = logging.getLogger(__name__)

Result: TypeAlias = dict[str, Any]
"""One detection, as in the COCO results format."""


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
    """Read a COCO results file.

    Args:
        path: A JSON list of results.

    Returns:
        The results, masks as compressed run-length codes.

    Raises:
        BoxelError: The file is missing or not such a list, or a result lacks a field.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.json"
        >>> _ = path.write_text('[{"image_id": 7, "category_id": 1, "score": 0.9, "bbox": [0, 0, 8, 8]}]')
        >>> read_results(path)[0]["bbox"]
        [0.0, 0.0, 8.0, 8.0]
    """
    try:
        rows = msgspec.json.decode(Path(path).read_bytes(), type=list[_Row])
    except OSError as error:
        raise BoxelError(f"{path}: the results cannot be read ({error.strerror}); check the path.") from error
    except msgspec.MsgspecError as error:
        raise BoxelError(
            f"{path}: not a COCO results file ({error}); it should be a JSON list of objects with image_id, "
            "category_id, a finite score, and bbox or segmentation."
        ) from error
    results: list[Result] = msgspec.to_builtins(rows)
    for position, result in enumerate(results):
        where = f"{path}: result {position} (image {result['image_id']})"
        if "bbox" not in result and "segmentation" not in result:
            raise BoxelError(f"{where} has neither bbox nor segmentation; add one.")
        if "segmentation" in result:
            try:
                result["segmentation"] = to_rle(result["segmentation"], *result["segmentation"]["size"])
            except Exception as error:  # pycocotools raises bare Exception and TypeError too
                raise BoxelError(
                    f"{where} has a mask that cannot be read ({one_line(error)}); write it with pycocotools."
                ) from error
    return results


def to_results(data: Annotations) -> list[Result]:
    """Turn a dataset into detections, e.g. to compute the AP of its masks.

    Args:
        data: Each instance that is not a crowd becomes a result, with its quality as the score (1 if unknown).

    Raises:
        BoxelError: A mask cannot be read.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> data = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
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


def to_annotations(results: Sequence[Result], images: str | Path | Annotations) -> Annotations:
    """Turn detections into a dataset, e.g. to draw them; the inverse of :func:`to_results`.

    Args:
        results: Detections in the COCO results format; their scores become the quality.
        images: The dataset that the ids of the results come from; or a folder, where the image of a result is the file
            with its `file_name`, else the one whose name without the suffix is its `image_id` (as a number or as text).

    Returns:
        The images that have detections. Categories that ``images`` does not name are named by their ids.

    Raises:
        BoxelError: An image is unknown.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> data = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> to_results(to_annotations(to_results(data), data)) == to_results(data)
        True
    """
    find = _image_finder(images)
    names = {c.id: c for c in images.categories} if isinstance(images, Annotations) else {}
    known = [names.get(k, Category(k, f"category {k}")) for k in sorted({r["category_id"] for r in results})]
    label = {category.id: k for k, category in enumerate(known)}
    rows, index = Builder(), dict[Any, int]()
    for position, (result, box) in enumerate(zip(results, get_boxes(results).tolist(), strict=True), start=1):
        image_id = result["image_id"]
        if image_id not in index:
            height, width = (result.get("segmentation") or {"size": (0, 0)})["size"]
            index[image_id] = rows.add_image(image_id, str(find(result)), width, height)
        mask = None if result.get("segmentation") is None else msgspec.json.encode(result["segmentation"])
        corners = [box[0], box[1], box[0] + box[2], box[1] + box[3]]
        rows.add(
            position, index[image_id], label[result["category_id"]], corners, mask, quality=result["score"]
        )
    return rows.build(Path(), known, Path())


def _image_finder(images: str | Path | Annotations) -> Callable[[Result], Path]:
    """Return the function that finds the image file of a result."""
    paths: dict[Any, Path] = {}
    if isinstance(images, Annotations):
        paths = {image_id: images.image_path(i) for i, image_id in enumerate(images.image_ids)}
        source = images.file
    else:
        source = str(images)
        for path in find_images(images):
            paths.setdefault(path.name, path)
            paths.setdefault(int(path.stem) if path.stem.isdecimal() else path.stem, path)

    def find(result: Result) -> Path:
        name, image_id = PurePath(result.get("file_name") or "").name, result["image_id"]
        for key in (name, image_id) if isinstance(images, str | Path) else (image_id,):
            if key in paths:
                return paths[key]
        raise BoxelError(f"{source} has no image {name or image_id}; use the images that were predicted on.")

    return find


def is_results_file(path: str | Path) -> bool:
    """Return whether a file is a JSON list, as COCO results are, and not an object, as COCO datasets are."""
    try:
        with open(path, "rb") as file:
            return file.read(64).lstrip().startswith(b"[")
    except OSError:
        return False


def match_image_ids(truth: Annotations, results: Sequence[Result]) -> list[Result]:
    """Return the results under the image ids of the ground truth.

    `boxel predict` sees image files but no annotations, so it derives ids from file names. If every result has a
    ``file_name``, and each is the name (without folders) of exactly one image of the ground truth, these names decide;
    otherwise the ids of the results do.
    """
    names = [PurePath(path).name for path in truth.paths]
    count = Counter(names)
    ids = {name: id for name, id in zip(names, truth.image_ids, strict=True) if name and count[name] == 1}
    named = [PurePath(result.get("file_name") or "").name for result in results]
    if not all(name in ids for name in named):
        return list(results)
    return [{**result, "image_id": ids[name]} for result, name in zip(results, named, strict=True)]


def check_results(
    truth: Annotations, results: Sequence[Result], class_agnostic: bool = False, file: str = "results"
) -> None:
    """Raise an error if results cannot be compared with this ground truth.

    Results of categories that the ground truth lacks are allowed unless all of them are; they are left out, as in
    pycocotools.

    Args:
        truth: The ground truth.
        results: Detections.
        class_agnostic: Ignore categories.
        file: Where the results come from, for messages.

    Raises:
        BoxelError: An image that the ground truth lacks, a score or box that is not finite, masks in some of the
            results only, a mask of another size than its image, or not a single known category.

    Examples:
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> truth = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> check_results(truth, to_results(truth))
    """
    index = {image_id: i for i, image_id in enumerate(truth.image_ids)}
    with_masks = has_masks(results)
    source = truth.file or "the ground truth"
    for position, result in enumerate(results):
        where = f"{file}: result {position} (image {result['image_id']})"
        image = index.get(result["image_id"])
        if image is None:
            raise BoxelError(
                f"{where} belongs to an image that {source} lacks; evaluate against the annotations of the images "
                "predicted on."
            )
        box, segmentation = result.get("bbox"), result.get("segmentation")
        if not math.isfinite(result["score"]):
            raise BoxelError(f"{where} has the score {result['score']}; remove it or give it a finite score.")
        if box is not None and not (len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) >= 0):
            raise BoxelError(
                f"{where} has the box {list(box)}; boxes are finite x, y, width, height in pixels."
            )
        if (segmentation is not None) != with_masks:
            lacks = "no segmentation" if with_masks else "a segmentation"
            raise BoxelError(f"{where} has {lacks}, unlike the first; give every result one, or none.")
        size = [int(truth.heights[image]), int(truth.widths[image])]
        if segmentation is not None and 0 not in size and list(segmentation["size"]) != size:
            raise BoxelError(
                f"{where} has a mask of {list(segmentation['size'])} (height, width) in an image of {size}; "
                "predict on the annotated image itself."
            )
    known = {category.id for category in truth.categories}
    if results and not class_agnostic and not any(result["category_id"] in known for result in results):
        raise BoxelError(
            f"{file}: none of the results has a category of {source} ({', '.join(map(str, sorted(known)[:10]))}); map "
            "the category ids, or set `class_agnostic`."
        )


def has_masks(results: Sequence[Result]) -> bool:
    """Return whether the results have masks: whether the first has (`check_results` compares it with the others)."""
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
        >>> import tempfile
        >>> from boxel.data.synthetic import write_scenes
        >>> truth = write_scenes(tempfile.mkdtemp(), 1, height=64, width=96)
        >>> merged, results = filter_categories(truth, to_results(truth), class_agnostic=True)
        >>> [category.name for category in merged.categories]
        ['object']
    """
    chosen = truth if categories is None else truth.select_categories(categories)
    if class_agnostic:
        others = [
            label for label, category in enumerate(truth.categories) if category not in chosen.categories
        ]
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
        logger.warning(
            "%d true masks cannot be read, and only their boxes are used; the first: %s",
            len(errors),
            errors[0],
        )
    return masks


def with_readable_masks(truth: Annotations) -> Annotations:
    """Return the ground truth with run-length codes of the masks that can be read, and with all areas."""
    masks = np.full(len(truth.labels), None, dtype=object)
    masks[:] = [None if mask is None else msgspec.json.encode(mask) for mask in read_masks(truth)]
    areas = np.array([coco_area(truth, instance) for instance in range(len(masks))])
    return replace(truth, segmentations=masks, areas=areas)


def coco_area(truth: Annotations, instance: int) -> float:
    """Return the area of an instance as COCO counts it; that of the box if its mask cannot be read."""
    try:
        return truth.area(instance)
    except (BoxelError, ValueError):  # reported where masks are read
        return float(np.prod(truth.boxes[instance, 2:] - truth.boxes[instance, :2]))


def fill_in_sizes(truth: Annotations, results: Sequence[Result] = (), required: bool = True) -> Annotations:
    """Return the ground truth with sizes that its file omits (0) read from the headers of the image files.

    Without an image file, a run-length code states the size: that of a true mask, else that of a result. If sizes are
    ``required``, an unknown one of an image with an instance or a result is a `BoxelError`.
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
        if 0 in size and code is not None:
            height, width = code["size"]
            size = width, height
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
            height, width = msgspec.json.decode(truth.segmentations[instance] or b"", type=_Size).size
            return width, height
    return None

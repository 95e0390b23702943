"""Write YOLO: detection, segmentation, poses and oriented boxes; see :mod:`boxel.data.formats.yolo`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import ArrayLike

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import decode_extras, get_dict, get_list
from boxel.data.formats.geometry import enclose
from boxel.data.formats.layout import Export, clean_name, make_distinct, write_lines
from boxel.data.formats.rotated import CORNERS, find_mask_corners, find_rotated
from boxel.data.formats.yolo_files import CLASS_LISTS, OTHER_KEYS, nested_name
from boxel.data.formats.yolo_names import keypoint_shape
from boxel.data.formats.yolo_rows import box_corners
from boxel.data.image_names import fold_name
from boxel.data.issues import count_noun
from boxel.data.splits import SPLITS
from boxel.masks.rle import polygon_area
from boxel.utils.errors import UsageError, nearest

logger = logging.getLogger(__name__)

OPTIONS = ("simplify", "untrusted")
"""What `boxel.write` passes on."""

UNTRUSTED = ("write", "object", "image")
"""What becomes of a mask that is not trusted, or of a crowd: written, or its object or its image is left out."""

NO_SPLIT = "unassigned"
"""Folder of the images that belong to no split, if others do."""


def write(
    data: Annotations, path: Path, simplify: float | None = None, untrusted: str = "write"
) -> list[str]:
    """Write ``labels/``, ``data.yaml``, and the images linked into ``images/``.

    If any object has a mask, this is a segmentation dataset: a box would be taken for a mask there, so that objects
    without a mask are left out. Else the boxes are written, with keypoints if their number is known. Images of a split
    go into a folder of its name. Classes are numbered from 0 as Ultralytics requires, and coordinates are clipped to
    the image, since it refuses images with others. For ``simplify`` see `trace_outline`, for ``untrusted`` `UNTRUSTED`.
    """
    if untrusted not in UNTRUSTED:
        hint = nearest(untrusted, list(UNTRUSTED))
        raise UsageError(f"`untrusted` is {untrusted!r}; it can be {', '.join(UNTRUSTED)}.{hint}")
    if not data.has_segmentation.any():
        return _write_boxes(data, path)
    kept, sentences = _select(data, untrusted)
    export = Export(kept, path, "YOLO", "images", image_stems(kept), simplify, untrusted=True)
    for image, stem in enumerate(export.stems):
        lines: list[str] = []
        for instance in kept.instances_in(image).tolist():
            for ring in export.rings(instance, image, joined=True):
                lines += _add_ring(export, image, instance, ring)
        write_lines(path / "labels" / f"{stem}.txt", lines)
    sentences += _finish(export, "segment")
    if crowds := int(kept.iscrowd.sum()):
        sentences.append(f"YOLO has no crowds: {crowds} are written as ordinary instances.")
    needs = "YOLO masks need an image of known size, and some area inside it"
    return export.losses("holds outlines", needs, others=sentences, held=())


def _select(data: Annotations, untrusted: str) -> tuple[Annotations, list[str]]:
    """Leave out what has no mask, and what is not trusted or a crowd if wanted; return sentences on it."""
    boxes, doubtful = ~data.has_segmentation, data.has_segmentation & ~data.trusted
    crowds = data.has_segmentation & data.trusted & data.iscrowd
    out = boxes if untrusted == "write" else boxes | doubtful | crowds
    counts = {
        "without a mask": int(boxes.sum()),
        "with a mask that is not trusted": int((out & doubtful).sum()),
        "of a crowd": int((out & crowds).sum()),
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    total, images = len(data.labels), count_noun(len(np.unique(data.image_index[out])), "image")
    sentences = []
    if untrusted == "image" and out.any():
        keep = np.ones(len(data), dtype=bool)
        keep[data.image_index[out]] = False
        data = data.select_images(keep)
        left = total - len(data.labels)
        sentences.append(f"YOLO: {images} left out, with {left} of {total} objects ({', '.join(found)}).")
    elif out.any():
        data = data.select_instances(~out)
        sentences.append(
            f"YOLO: {int(out.sum())} of {total} objects are left out ({', '.join(found)}): a box would be taken for a "
            f"mask; training takes them for background, unless `untrusted` image leaves out their {images}."
        )
    if untrusted == "write" and doubtful.any():
        sentences.append(
            f"YOLO: {int(doubtful.sum())} masks that are not trusted are written like the others; `untrusted` object "
            "leaves out their objects, image their images."
        )
    return data, sentences


def _write_boxes(data: Annotations, path: Path) -> list[str]:
    """Write boxes, and keypoints if their number is known."""
    export = Export(data, path, "YOLO", "images", image_stems(data))
    extras = [decode_extras(fields) for fields in data.extras]
    shape = _pose_shape(data, extras)
    for image, stem in enumerate(export.stems):
        lines = []
        for instance, numbers in add_boxes(export, image):
            if shape is not None:
                points = get_list(extras[instance], "keypoints")
                numbers += _keypoint_numbers(points, shape, data.image_size(image))
            lines.append(format_row(int(data.labels[instance]), numbers))
        write_lines(path / "labels" / f"{stem}.txt", lines)
    others = _finish(export, "detect" if shape is None else "pose", shape)
    needs = "YOLO boxes need an image of known size and some area inside it"
    held = () if shape is None else ("keypoints", "num_keypoints")
    return export.losses("holds outlines", needs, others=others, held=held)


def write_oriented(data: Annotations, path: Path) -> list[str]:
    """Write oriented boxes: ``class`` and four corners.

    They are the corners that the dataset was read with; else those of the smallest rectangle around a mask; else those
    of the box.
    """
    export = Export(data, path, "YOLO-OBB", "images", image_stems(data), untrusted=True)
    plain = 0
    for image, stem in enumerate(export.stems):
        lines: list[str] = []
        for instance in data.instances_in(image).tolist():
            box = data.boxes[instance]
            extras = decode_extras(data.extras[instance])
            if find_rotated(extras, box) is not None:
                corners = extras[CORNERS]
            elif found := find_mask_corners(data.segmentation(instance), export.rle(instance, image)):
                corners = found
            else:
                corners, plain = box_corners(box), plain + 1
            lines += _add_ring(export, image, instance, corners, is_mask=False)
        write_lines(path / "labels" / f"{stem}.txt", lines)
    others = _finish(export, "obb")
    if plain:
        total = len(data.labels)
        others.append(f"YOLO-OBB: {plain} of {total} boxes are not turned: no rotation of theirs is known.")
    masks = int(data.has_segmentation.sum())
    if masks:
        others.append(f"YOLO-OBB holds no masks: {masks} become the smallest turned rectangles around them.")
    needs = "oriented boxes need an image of known size, and some area inside it"
    return export.losses("", needs, others=others, held=(CORNERS,))


def image_stems(data: Annotations) -> list[str]:
    """Return a distinct stem per image, in the folder of its split, with the folders that it had below that.

    Examples:
        >>> from boxel.data import example_scenes
        >>> image_stems(example_scenes(2))
        ['000000', '000001']
    """
    has_splits, names = any(data.splits), []
    for path, split in zip(data.paths, data.splits, strict=True):
        start = [split or NO_SPLIT] if has_splits else []
        parts = [part for part in nested_name(path, split) if part.lower() not in ("images", "labels")]
        if (
            parts and f"{parts[-1].lower()}.txt" in CLASS_LISTS
        ):  # its text would be taken for a list of classes
            parts[-1] += "_image"
        names.append("/".join(map(clean_name, [*start, *(parts or [""])])))
    return make_distinct(names, fold_name)


def _finish(export: Export, task: str, shape: tuple[int, int] | None = None) -> list[str]:
    """Write ``data.yaml`` and the ids; return a sentence on the split if it is not whole."""
    data, sentences = export.data, []
    splits = {split for split in data.splits if split is not None}
    config: dict[str, Any] = {
        split: f"images/{clean_name(split)}"
        for split in [*SPLITS, *sorted(splits - {*SPLITS, *OTHER_KEYS})]
        if split in splits
    }
    if not splits:
        config["train"] = "images"
    if len(data) and "val" not in splits:
        what = "data.yaml has no `val`, which trainers ask for, as the dataset has no such split"
        logger.info("%s; `boxel convert --val-share 0.2` makes one", what)
    missing = sum(split is None for split in data.splits)
    if splits and missing:
        where = f"{export.folder / 'images' / NO_SPLIT}, which nothing trains on"
        sentences.append(f"YOLO: {missing} images belong to no split and lie in {where}.")
    if shape is not None:
        extras = get_dict(decode_extras(data.dataset_extras), "yolo")
        config["kpt_shape"] = list(shape)
        if flip := get_list(extras, "flip_idx"):
            config["flip_idx"] = [int(k) for k in flip]
    config |= {"task": task, "names": {k: c.name for k, c in enumerate(data.categories)}}
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    (export.folder / "data.yaml").write_text(text, encoding="utf-8")
    export.write_ids()
    return sentences


def _pose_shape(data: Annotations, extras: Sequence[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Return the number of keypoints and of numbers for each: as stated, else as all objects that have some agree."""
    stated = keypoint_shape(get_dict(decode_extras(data.dataset_extras), "yolo"))
    counts = {len(points) for fields in extras if (points := get_list(fields, "keypoints"))}
    if not counts or len(counts) > 1 or (count := counts.pop()) % 3:
        return None
    return stated if stated is not None and stated[0] == count // 3 else (count // 3, 3)


def _keypoint_numbers(points: list[Any], shape: tuple[int, int], size: tuple[int, int]) -> list[float]:
    """Return keypoints as shares of the image; all zeros if an object has none."""
    count, dims = shape
    if len(points) != 3 * count or not all(isinstance(v, int | float) for v in points):
        return [0.0] * (count * dims)
    values = np.reshape(points, (count, 3)).astype(float)
    values[:, :2] = (values[:, :2] / size).clip(0, 1)
    if dims == 2:
        values[values[:, 2] == 0] = 0
    numbers: list[float] = values[:, :dims].ravel().tolist()
    return numbers


def add_boxes(export: Export, image: int) -> Iterator[tuple[int, list[float]]]:
    """Add the boxes of an image that are inside it to an export, and yield the numbers of each by its instance."""
    data, size = export.data, export.data.image_size(image)
    for instance in data.instances_in(image).tolist() if all(size) else []:
        corners = data.boxes[instance].reshape(2, 2).clip(0, size)
        if np.isfinite(data.boxes[instance]).all() and (corners[0] < corners[1]).all():
            export.add(image, instance, corners.ravel().tolist())
            start, end = corners / size
            yield instance, [*((start + end) / 2).tolist(), *(end - start).tolist()]


def _add_ring(export: Export, image: int, instance: int, ring: ArrayLike, is_mask: bool = True) -> list[str]:
    """Add a ring to an export, and return its row; none if nothing of it is inside an image of known size."""
    size = export.data.image_size(image)
    points = np.reshape(ring, (-1, 2)).astype(float)
    if not all(size) or not np.isfinite(points).all():
        return []
    points = points.clip(0, size)
    if not np.ptp(points, axis=0).all():
        return []
    box = enclose(points.tolist())
    if is_mask and points.ravel().tolist() == box_corners(box):  # which would be read as a box
        points = np.roll(points, -1, axis=0)
    export.add(image, instance, box, polygon_area(points) if is_mask else None)
    return [format_row(int(export.data.labels[instance]), (points / size).ravel().tolist())]


def format_row(label: int, numbers: Sequence[float]) -> str:
    """Return the row of a label file."""
    return f"{label}{' %.12g' * len(numbers)}" % tuple(numbers)

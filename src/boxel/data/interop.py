"""Datasets of other libraries in memory: supervision's, and those of Hugging Face."""

from __future__ import annotations

import io
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.image_names import to_integer
from boxel.data.images import image_size
from boxel.masks.rle import decode, encode
from boxel.utils.errors import BoxelError, first_line, import_package
from boxel.utils.files import atomic_path
from boxel.utils.printable import count_noun, name_some

if TYPE_CHECKING:
    from datasets import Dataset
    from supervision import DetectionDataset

logger = logging.getLogger(__name__)

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif"}


def to_supervision(data: Annotations) -> DetectionDataset:
    """Return a dataset as supervision's `DetectionDataset`.

    All masks are decoded, each of which takes a byte per pixel of its image. The `data` of the detections have the ids
    and qualities.

    Args:
        data: The dataset. Crowds are left out; an object without a trusted mask has an empty one if others have masks.

    Raises:
        BoxelError: supervision is not installed, or a segmentation is malformed.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes()
        >>> to_supervision(scenes).annotations[str(scenes.image_path(0))].mask.shape
        (5, 64, 96)
    """
    supervision = import_package("supervision", "this")
    found = {}
    for image in range(len(data)):
        own = data.instances_in(image)
        rows = own[~data.iscrowd[own]]
        masks = None
        if data.has_mask[rows].any():
            width, height = data.image_size(image)
            masks = np.zeros((len(rows), height, width), dtype=bool)
            for place, row in enumerate(rows.tolist()):
                if data.has_mask[row]:
                    masks[place] = decode(data.rle(row, (height, width)))  # type: ignore[arg-type]
        found[str(data.image_path(image))] = supervision.Detections(
            xyxy=data.boxes[rows],
            mask=masks,
            class_id=data.labels[rows].astype(int),
            data={"id": np.array([str(data.ids[row]) for row in rows]), "quality": data.quality[rows]},
        )
    names = [category.name for category in data.categories]
    return supervision.DetectionDataset(names, list(found), found)


def from_supervision(dataset: DetectionDataset) -> Annotations:
    """Return supervision's `DetectionDataset` as a dataset, with new ids from 1 up.

    Args:
        dataset: Its images are files. An empty mask counts as none.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes()
        >>> again = from_supervision(to_supervision(scenes))
        >>> again.rle(0) == scenes.rle(0), again.boxes.tolist() == scenes.boxes.tolist()
        (True, True)
    """
    folders = [str(Path(path).resolve().parent) for path in dataset.image_paths]
    root = Path(os.path.commonpath(folders or ["."]))
    rows = Builder()
    for path in dataset.image_paths:
        file = Path(path).resolve()
        image = rows.add_image(len(rows.paths) + 1, file.relative_to(root).as_posix(), *image_size(file))
        found = dataset.annotations[path]
        for place, box in enumerate(np.asarray(found.xyxy, dtype=np.float64).tolist()):
            mask = None if found.mask is None else np.asarray(found.mask[place])
            code = msgspec.json.encode(encode(mask)) if mask is not None and mask.any() else None
            label = 0 if found.class_id is None else int(found.class_id[place])
            quality = float(found.data["quality"][place]) if "quality" in found.data else None
            rows.add(len(rows.ids) + 1, image, label, box, code, quality=quality)
    categories = [Category(k, name) for k, name in enumerate(dataset.classes or ["object"], start=1)]
    return rows.build(root, categories, root)


def to_huggingface(data: Annotations) -> Dataset:
    """Return a dataset of Hugging Face's `datasets`, in the columns that its guides to object detection use.

    Columns are `image`, `image_id`, `width`, `height` and `objects`: `id`, `bbox` (x, y, width and height in pixels),
    `category`, `area`, `iscrowd`, `segmentation` (COCO's as JSON, or None), `quality`, `source` and `trusted`. Images
    stay files; `push_to_hub` of the result takes them along.

    Raises:
        BoxelError: datasets is not installed.

    Examples:
        >>> from boxel.data import example_scenes
        >>> to_huggingface(example_scenes()).column_names  # doctest: +SKIP
        ['image', 'image_id', 'width', 'height', 'objects']
    """
    datasets = import_package("datasets", "this")
    value = datasets.Value
    objects = {
        "id": value("string"),
        "bbox": datasets.Sequence(value("float64"), length=4),
        "category": datasets.ClassLabel(names=[category.name for category in data.categories]),
        "area": value("float64"),
        "iscrowd": value("bool"),
        "segmentation": value("string"),
        "quality": value("float32"),
        "source": value("string"),
        "trusted": value("bool"),
    }
    columns = {
        "image": datasets.Image(),
        "image_id": value("string"),
        "width": value("int64"),
        "height": value("int64"),
        "objects": datasets.Sequence(objects),
    }
    return datasets.Dataset.from_list(list(_to_rows(data)), features=datasets.Features(columns))


def from_huggingface(dataset: Dataset, images: str | Path) -> Annotations:
    """Return a dataset of Hugging Face's `datasets`, and write its images into a folder, unless they are there.

    Args:
        dataset: In the columns of :func:`to_huggingface`, of which only `image` and the `bbox` of `objects` must be
            there. `category` is a `ClassLabel` or a number.
        images: The folder.

    Rows whose image is not one are left out, which is logged.

    Raises:
        BoxelError: It has no such columns, or an image cannot be written.

    Examples:
        >>> from boxel.data import example_scenes
        >>> from_huggingface(to_huggingface(example_scenes()), "images").labels.shape  # doctest: +SKIP
        (5,)
    """
    missing = {"image", "objects"} - set(dataset.column_names)
    if missing:
        names = ", ".join(sorted(missing))
        raise BoxelError(f"the dataset has no column {names}; rename its columns to image and objects.")
    folder = Path(images)
    features = _features_of_objects(dataset)
    classes = getattr(features.get("category"), "names", None)
    rows, most, bad = Builder(), 0, list[str]()
    stored = dataset.cast_column("image", import_package("datasets", "this").Image(decode=False))
    for number, row in enumerate(stored):
        try:
            content, suffix = _read_stored(row["image"])
        except (OSError, TypeError, Image.DecompressionBombError) as error:
            bad.append(f"row {number} ({first_line(error)})")
            continue
        name = _write_image(content, row["image"].get("path") or f"{number:06d}{suffix}", folder, number)
        image = rows.add_image(_as_id(row.get("image_id", number + 1)), name, *image_size(folder / name))
        for one in _unzip(row["objects"]):
            x, y, width, height = one["bbox"]
            most = max(most, label := int(one.get("category") or 0))
            segmentation = one.get("segmentation")
            rows.add(
                _as_id(one.get("id", len(rows.ids) + 1)),
                image,
                label,
                (x, y, x + width, y + height),
                segmentation.encode() if segmentation else None,
                bool(one.get("iscrowd")),
                quality=one.get("quality"),
                source=one.get("source"),
                trusted=one.get("trusted") is not False,
                area=one.get("area"),
            )
    if bad:
        count = count_noun(len(bad), "row")
        logger.warning("%s left out, without a readable image: %s", count, name_some(bad))
    classes = classes or [str(label) for label in range(most + 1)]
    return rows.build(folder, [Category(k, name) for k, name in enumerate(classes, start=1)], folder)


def _to_rows(data: Annotations) -> Iterator[dict[str, Any]]:
    for image in range(len(data)):
        width, height = data.image_size(image)
        rows = data.instances_in(image)
        corners, sides = data.boxes[rows, :2], data.boxes[rows, 2:] - data.boxes[rows, :2]
        objects = {
            "id": [str(data.ids[row]) for row in rows],
            "bbox": np.concatenate([corners, sides], axis=1).tolist(),
            "category": data.labels[rows].tolist(),
            "area": [data.area(row) for row in rows.tolist()],
            "iscrowd": data.iscrowd[rows].tolist(),
            "segmentation": [text and text.decode() for text in data.segmentations[rows]],
            "quality": [None if math.isnan(quality) else quality for quality in data.quality[rows].tolist()],
            "source": data.source[rows].tolist(),
            "trusted": data.trusted[rows].tolist(),
        }
        yield {
            "image": str(data.image_path(image)),
            "image_id": str(data.image_ids[image]),
            "width": width,
            "height": height,
            "objects": objects,
        }


def _features_of_objects(dataset: Dataset) -> dict[str, Any]:
    """Return the types of the columns of objects, which are lists of structures or structures of lists."""
    objects = dataset.features["objects"]
    inner = getattr(objects, "feature", objects)
    inner = inner[0] if isinstance(inner, list) else inner
    return {name: getattr(kind, "feature", kind) for name, kind in dict(inner).items()}


def _unzip(objects: Any) -> list[dict[str, Any]]:
    """Return the objects of an image as dictionaries."""
    if not isinstance(objects, dict):
        return list(objects)
    return [dict(zip(objects, values, strict=True)) for values in zip(*objects.values(), strict=True)]


def _read_stored(image: dict[str, Any]) -> tuple[bytes, str]:
    """Return an image as it is stored, and the suffix of its format."""
    content = image["bytes"]
    content = Path(image["path"]).read_bytes() if content is None else content
    with Image.open(io.BytesIO(content)) as opened:
        return content, _SUFFIXES.get(opened.format or "", ".png")


def _write_image(content: bytes, path: str, folder: Path, number: int) -> str:
    """Return the name of an image in a folder, where it is written unless it is there."""
    name = Path(path).name
    if (folder / name).is_file() and (folder / name).read_bytes() != content:
        name = f"{number:06d}{Path(path).suffix}"
    if not (folder / name).is_file():
        with atomic_path(folder / name) as temporary:
            temporary.write_bytes(content)
    return name


def _as_id(value: Any) -> int | str:
    """Return an id as a number if it is one."""
    text = str(value)
    number = to_integer(text)
    return number if str(number) == text else text

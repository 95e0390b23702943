"""Salient datasets: images of one object each, with its mask as a black-and-white image.

The layout: a folder ``images`` and a folder ``masks`` with files of the same stems. Pixels of a mask that are brighter
than half are the object; each mask becomes one instance of the category ``salient``.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import msgspec
import numpy as np
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import Export, find_image
from boxel.data.images import SUFFIXES, image_size, read_image
from boxel.data.issues import Issue
from boxel.masks.boxes import tight_boxes
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

CATEGORY = Category(1, "salient")

_MIN_AREA, _MIN_CONNECTED = 0.02, 0.9  # shares of the image, and of the mask


def recognize(path: Path) -> bool:
    """Return whether this is a folder of images with a folder of masks beside them."""
    return (path / "images").is_dir() and (path / "masks").is_dir()


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a salient dataset, one instance per image.

    Images without a mask, and masks without foreground or of another size than their image, become issues.
    """
    root, masks = images or path / "images", path / "masks"
    files = _image_files(masks)
    if not files:
        raise BoxelError(f"{masks}: there are no masks; put one black-and-white image per image into it.")
    rows = Builder()
    masked = {file.stem for file in files}
    for file in _image_files(root):
        if file.stem not in masked:
            what = f"the image has no mask in {masks} and is left out; draw it, or remove the image."
            rows.report("no-mask", file, what, repair="")
    for file in files:
        try:
            _add(rows, root, file)
        except BoxelError as error:
            rows.issues.append(Issue("bad-mask", f"{error} The image is left out.", str(file)))
    return rows.build(root, [CATEGORY], path)


def _image_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)


def _add(rows: Builder, root: Path, file: Path) -> None:
    name = find_image(root, file.stem)
    width, height = image_size(root / name)
    mask = read_image(file)[..., 0] > 127
    if mask.shape != (height, width):
        raise BoxelError(
            f"{file}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels and its image {width} x {height}; "
            "make them the same size."
        )
    if not mask.any():
        raise BoxelError(f"{file}: the mask is all black; draw it, or remove it.")
    image = rows.add_image(file.stem, name, width, height)
    (box,) = tight_boxes([mask]).tolist()
    rows.add(f"{file.stem}:1", image, 0, box, msgspec.json.encode(encode(mask)), area=float(mask.sum()))


def write(data: Annotations, path: Path) -> list[str]:
    """Write images and black-and-white masks; all instances of an image share one mask."""
    export = Export(data, path, "a salient dataset", "images")
    (path / "masks").mkdir(parents=True, exist_ok=True)
    for image, stem in enumerate(export.stems):
        masks = list(export.masks(image).values())
        if masks:
            Image.fromarray(np.max(masks, axis=0) * 255).save(path / "masks" / f"{stem}.png")
    lost = int((~data.has_mask).sum())
    merged = len(data.categories) > 1 or len(data.labels) > len(data)
    sentences = {
        f"a salient dataset has masks only: {lost} instances without one are left out.": lost,
        "a salient dataset has neither categories nor instances: those of an image are one mask.": merged,
    }
    return export.losses(others=[sentence for sentence, applies in sentences.items() if applies])


def select_single_objects(data: Annotations) -> Annotations:
    """Select the images that show a single object: BoxCaseg's DUTS-Single (section 4).

    Args:
        data: One instance with its mask per image; other instances are left out.

    Returns:
        The images with exactly one trusted mask that covers at least 2 % of them, 90 % of it connected.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = select_single_objects(sample_images())
        >>> [data.categories[label].name for label in data.labels]
        ['person', 'cat', 'motorcycle']
    """
    keep = np.zeros(len(data.labels), dtype=bool)
    alone = np.bincount(data.image_index, minlength=len(data))[data.image_index] == 1
    for instance in np.flatnonzero(alone & data.has_mask & ~data.iscrowd).tolist():
        try:
            mask = data.mask(instance)
        except BoxelError as error:
            logger.warning("%s Its image is left out.", error)
            continue
        if mask is not None and mask.any() and mask.mean() >= _MIN_AREA:
            sizes = np.bincount(cv2.connectedComponents(mask)[1].ravel())[1:]
            keep[instance] = sizes.max() >= _MIN_CONNECTED * sizes.sum()
    single = data.select_instances(keep)
    return single.select_images(np.unique(single.image_index))

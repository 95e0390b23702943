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
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.formats.layout import Export, inside
from boxel.data.formats.names import files_below, named_folder
from boxel.data.images import image_size, read_image
from boxel.data.issues import Issue
from boxel.data.label_maps import write_gray
from boxel.masks.boxes import tight_boxes
from boxel.masks.rle import encode
from boxel.utils.errors import BoxelError

logger = logging.getLogger(__name__)

CATEGORY = Category(1, "salient")

_WHITE = 255
_MAX_SPREAD = 32  # of red, green and blue in a gray JPEG

_MIN_AREA, _MIN_CONNECTED = 0.02, 0.9  # shares of the image, and of the mask


def recognize(path: Path) -> bool:
    """Return whether this is a folder of images with a folder of masks beside them."""
    return named_folder(path, "images").is_dir() and named_folder(path, "masks").is_dir()


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read a salient dataset, one instance per image.

    The object is white. It may have another value if that is the only one beside black, as in masks of 0 and 1; this is
    logged. Images without a mask, and masks without foreground, of another size than their image, in color or with
    transparency, become issues, and so do images or masks of one name.
    """
    root, masks = images or named_folder(path, "images"), named_folder(path, "masks")
    files, pictures = _group_by_stem(masks), _group_by_stem(root)
    if not files:
        raise BoxelError(f"{masks}: there are not masks; put one black-and-white image per image into it.")
    rows = Builder()
    for stem in sorted(pictures.keys() - files.keys()):
        what = f"the image has no mask in {masks} and is left out; draw it, or remove the image."
        rows.report("no-mask", pictures[stem][0], what, repair="")
    values: set[int] = set()
    for stem, several in files.items():
        try:
            for kind, found in (("masks", several), ("images", pictures.get(stem, []))):
                if len(found) > 1:
                    names = " and ".join(file.name for file in found[:2])
                    what = f"there are several {kind} of one name, {names}; remove all but one."
                    raise BoxelError(f"{found[1]}: {what}")
            image = pictures.get(stem, [root / f"{stem}.jpg"])[0]
            _add(rows, image.relative_to(root).as_posix(), root, several[0], values)
        except BoxelError as error:
            rows.issues.append(Issue("bad-mask", f"{error} The image is left out.", str(several[0])))
    if values - {_WHITE}:
        logger.info("%s: the object has the value %s in some masks, and is read so.", masks, min(values))
    return rows.build(root, [CATEGORY], path)


def _group_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Group the images in a folder and below it by their path without suffix."""
    groups: dict[str, list[Path]] = {}
    for file in files_below(folder):
        groups.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
    return groups


def _add(rows: Builder, name: str, root: Path, file: Path, values: set[int]) -> None:
    width, height = image_size(root / name)
    mask = _read_mask(file, values)
    if mask.shape != (height, width):
        raise BoxelError(
            f"{file}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels and its image {width} x {height}; "
            "make them the same size."
        )
    if not mask.any():
        raise BoxelError(f"{file}: the mask is all black; draw it, or remove it.")
    stem = name.removesuffix(Path(name).suffix)
    image = rows.add_image(stem, name, width, height)
    (box,) = tight_boxes([mask]).tolist()
    rows.add(f"{stem}:1", image, 0, box, msgspec.json.encode(encode(mask)), area=float(mask.sum()))


def _read_mask(file: Path, values: set[int]) -> NDArray[np.bool_]:
    """Read a mask as bool, and add the value of its object to the known ones."""
    pixels = read_image(file)
    with Image.open(file) as image:
        if "A" in image.mode and np.ptp(np.asarray(image.getchannel("A"))):
            what = "the mask has transparent pixels; save the object white on black without them."
            raise BoxelError(f"{file}: {what}")
        palette = np.asarray(image) if image.mode == "P" else None
    gray = pixels.max(axis=2)
    if int((gray - pixels.min(axis=2)).max()) > _MAX_SPREAD:
        if palette is None or len(np.unique(palette)) > 2:
            raise BoxelError(f"{file}: the mask is in color; save the object white on black.")
        gray = palette
    top = int(gray.max())
    if top <= 127 and top:
        if len(np.unique(gray)) > 2:
            what = f"the brightest pixel of the mask is {top}; save the object white (255)."
            raise BoxelError(f"{file}: {what}")
        values.add(top)
        return gray > 0
    values.add(_WHITE)
    return gray > 127


def write(data: Annotations, path: Path) -> list[str]:
    """Write images and black-and-white masks; all instances of an image share one mask."""
    export = Export(data, path, "a salient dataset", "images")
    (path / "masks").mkdir(parents=True, exist_ok=True)
    for image, stem in enumerate(export.stems):
        masks = export.masks(image)
        if masks:
            painted = np.zeros(data.image_size(image)[::-1], dtype=np.uint8)
            for crop in masks.values():
                np.copyto(inside(painted, crop), np.uint8(_WHITE), where=crop[0].view(bool))
            write_gray(path / "masks" / f"{stem}.png", painted)
    lost = int((~data.has_mask).sum())
    merged = len(data.categories) > 1 or len(data.labels) > len(data)
    sentences = {
        f"a salient dataset has masks only: {lost} instances without a trusted one are left out.": lost,
        "a salient dataset has neither categories nor instances: those of an image are one mask.": merged,
    }
    return export.losses(others=[sentence for sentence, applies in sentences.items() if applies], held=())


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

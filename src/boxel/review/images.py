"""Images without annotations, in which a reviewer draws the first boxes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from boxel.data import recognize
from boxel.data.annotations import OBJECT, Annotations, Category
from boxel.data.formats.builder import Builder
from boxel.data.images import SUFFIXES, image_size, read_image
from boxel.data.sources import find_images
from boxel.utils.errors import BoxelError
from boxel.utils.files import atomic_path

_MAX_NAME = 200  # bytes


def is_folder_of_images(path: str | Path) -> bool:
    """Return whether a path is a folder that is not a dataset.

    Examples:
        >>> from boxel.data import example_scenes
        >>> folder = example_scenes().root
        >>> is_folder_of_images(folder), is_folder_of_images(folder.parent)
        (True, False)
    """
    if not Path(path).is_dir():
        return False
    try:
        recognize(path)
    except BoxelError:
        return True
    return False


def images_as_dataset(folder: str | Path, classes: Sequence[str] = ()) -> Annotations:
    """Return the images of a folder as a dataset without objects.

    Args:
        folder: The folder, searched as `boxel.predict` does; it may have no image yet.
        classes: Names of the classes of the objects to come; "object" if there are none.

    Examples:
        >>> from boxel.data import example_scenes
        >>> data = images_as_dataset(example_scenes(2).root, ["cat"])
        >>> len(data), len(data.ids), data.categories[0].name
        (2, 0, 'cat')
    """
    root = Path(folder).resolve()
    rows = Builder()
    for file in find_images(root) if any(root.iterdir()) else []:
        rows.add_image(len(rows.paths) + 1, file.relative_to(root).as_posix(), *image_size(file))
    categories = [Category(number, name) for number, name in enumerate(classes or [OBJECT], start=1)]
    return rows.build(root, categories, root)


def save_image(data: Annotations, name: str, content: bytes) -> Annotations:
    """Write an image into the folder of a dataset, under a name that is free there; return the dataset with it.

    Args:
        data: The dataset.
        name: Name of the file; folders in it, and characters that some systems do not allow, do not count.
        content: The file.

    Raises:
        BoxelError: It is not an image that boxel reads.
    """
    stem, suffix = _clean_name(name)
    path, number = data.root / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = data.root / f"{stem}-{number}{suffix}"
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
        try:
            height, width = read_image(temporary).shape[:2]
        except BoxelError as error:
            reason = str(error).replace(f"{temporary}", name)
            raise BoxelError(reason) from None
    id = max((one for one in data.image_ids if isinstance(one, int)), default=0) + 1
    return replace(
        data,
        image_ids=[*data.image_ids, id],
        paths=[*data.paths, path.name],
        widths=np.append(data.widths, np.int32(width)),
        heights=np.append(data.heights, np.int32(height)),
        label_maps=[*data.label_maps, None],
        image_extras=[*data.image_extras, None],
        splits=[*data.splits, None],
    )


def _clean_name(name: str) -> tuple[str, str]:
    """Return a stem and a suffix that any file system takes.

    Examples:
        >>> _clean_name("../../etc/pass wd.PNG"), _clean_name(".jpg")
        (('pass wd', '.PNG'), ('image', '.jpg'))
        >>> len(_clean_name("犬" * 100 + ".jpg")[0])
        66
    """
    last = re.split(r"[/\\]", name)[-1]
    stem, dot, suffix = last.rpartition(".")
    if not dot or f".{suffix.lower()}" not in SUFFIXES:
        raise BoxelError(f"{last!r}: give an image file, whose name ends in {', '.join(sorted(SUFFIXES))}.")
    clean = (
        re.sub(r'[\x00-\x1f\x7f<>:"|?*]', "_", stem).strip(". ").encode()[:_MAX_NAME].decode(errors="ignore")
    )
    return clean or "image", f".{suffix}"

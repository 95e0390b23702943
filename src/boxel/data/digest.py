"""Digests of datasets, by which two of them are known to be the same."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from boxel.data.annotations import COLUMNS, Annotations
from boxel.data.images import SUFFIXES
from boxel.utils.provenance import digest_file

_MASKS = re.compile(r"masks?|labels?|annotations|gtfine|.*annot|segmentation.*", re.IGNORECASE)
"""What folders of masks and label maps are called."""

_LISTS = ("image_ids", "paths", "categories", "ids", "label_maps", "image_extras", "splits", "dataset_extras")


def digest_data(data: Annotations) -> str:
    """Return the SHA-256 of all that a dataset holds, as hexadecimal digits; of images and label maps, the names.

    Examples:
        >>> from boxel.data import example_scenes
        >>> digest_data(example_scenes()) == digest_data(example_scenes(2))
        False
    """
    total = sha256()
    for name in COLUMNS:
        column = getattr(data, name)
        total.update(msgspec.msgpack.encode(column.tolist()) if column.dtype == object else column.tobytes())
    total.update(data.map_labels.tobytes())
    for name in _LISTS:
        total.update(msgspec.msgpack.encode(getattr(data, name)))
    return total.hexdigest()


def describe_source(source: Annotations | str | Path | list[Any] | tuple[Any, ...]) -> Any:
    """Describe datasets, files and folders, ready for JSON: where each is, its digest, and how much it holds if read.

    Examples:
        >>> from boxel.data import example_scenes
        >>> describe_source(example_scenes())["images"], describe_source("boxcaseg")
        (1, {'path': 'boxcaseg'})
    """
    if isinstance(source, list | tuple):
        return [describe_source(one) for one in source]
    if isinstance(source, Annotations):
        file = str(Path(source.file).resolve()) if source.file else None
        return {"path": file, "sha256": digest_data(source)} | count_masks(source)
    path = Path(source)
    if path.is_file() or path.is_dir():
        return {"path": str(path.resolve()), "sha256": digest_path(path)}
    return {"path": str(source)}  # e.g. a bundled model


def digest_path(path: str | Path) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder; hidden ones do not count.

    Of images the sizes count, not the contents, unless a folder is called as those of masks and label maps are.

    Examples:
        >>> import tempfile
        >>> digest_path(tempfile.mkdtemp())[:8]
        'e3b0c442'
    """
    top = Path(path).resolve()
    if not top.is_dir():
        return digest_file(top)
    digest = sha256()
    for parent, folders, files in os.walk(top):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        holds_masks = any(map(_MASKS.fullmatch, Path(parent).relative_to(top.parent).parts))
        for name in sorted(files):
            file = Path(parent, name)
            if name.startswith(".") or not file.is_file():
                continue
            is_image = file.suffix.lower() in SUFFIXES and not holds_masks
            content = file.stat().st_size if is_image else digest_file(file)
            line = f"{file.relative_to(top).as_posix()}\0{content}\n"
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def count_masks(data: Annotations) -> dict[str, int]:
    """Count images, instances and masks.

    Examples:
        >>> from boxel.data import example_scenes
        >>> count_masks(example_scenes())
        {'images': 1, 'instances': 5, 'masks': 5}
    """
    return {"images": len(data), "instances": len(data.labels), "masks": int(data.has_mask.sum())}

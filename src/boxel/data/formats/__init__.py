"""Reading and writing data sets: one module a format, told apart by looking.

Each module has `recognize(path) -> bool`, `read(path, images) -> Annotations` (YOLO's and semantic's take a split too,
and the latter a class list) and `write(data, path) -> list[str]`, which returns a sentence for each thing the format
could not hold.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from boxel.data.annotations import Annotations
from boxel.data.formats import coco, labelme, salient, sbd, semantic, voc, yolo
from boxel.data.formats.semantic_files import holds_label_maps
from boxel.utils.errors import BoxelError, nearest

# In the order in which they are tried. Semantic sets have images/ and labels/ too, as YOLO's, but no texts in them.
_FORMATS: dict[str, ModuleType] = {
    "semantic": semantic,
    "yolo": yolo,
    "voc": voc,
    "sbd": sbd,
    "labelme": labelme,
    "coco": coco,
    "salient": salient,
}


class ConversionWarning(UserWarning):
    """Something of a data set is not in what was written; the text says what and how much."""


def recognize(path: str | Path) -> str:
    """The name of a data set's format: ``coco``, ``voc``, ``sbd``, ``yolo``, ``labelme``, ``salient`` or ``semantic``.

    Args:
        path: an annotation file or the folder of a data set.

    Raises:
        BoxelError: there is nothing at the path, or nothing known.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise BoxelError(f"{path}: there is no such file or folder; check the path.")
        for name, module in _FORMATS.items():
            if module.recognize(path):
                return name
        if holds_label_maps(path):  # whose images are elsewhere
            return "semantic"
    except (OSError, ValueError) as error:
        raise BoxelError(f"{path}: cannot be opened ({error}); check the path.") from error
    raise BoxelError(f"{path}: no data set of a known format is here; name its format ({_known()}).")


def read(
    path: str | Path,
    images: str | Path | None = None,
    format: str | None = None,
    split: str | None = None,
    classes: str | Path | None = None,
) -> Annotations:
    """A data set, in whatever format it is.

    Boxes are enough: an instance without a mask is normal. An annotation that cannot be understood is left
    out and told in `Annotations.issues`; the rest is read.

    Args:
        path: a COCO or LabelMe JSON file, a ``data.yaml``, or the folder of a VOC, SBD, YOLO, LabelMe, salient or
            semantic set.
        images: the folder of the images; looked for beside the annotations if not given.
        format: ``coco``, ``voc``, ``sbd``, ``yolo``, ``labelme``, ``salient`` or ``semantic``; recognized if not given.
        split: ``train``, ``val`` or ``test`` of a YOLO set, as its ``data.yaml`` lists them, or of a semantic set, as
            its folders are called; all if not given. Other formats have a file or a list for each split, and heed only
            that.
        classes: the class list of a semantic set: a text that names the class of each value, or ``camvid``, ``voc``,
            ``cityscapes``, ``cityscapes-train-ids`` or ``pascal-context``; looked for in the set if not given.

    Raises:
        BoxelError: the path, the format or the file as a whole is wrong, or there are classes for another format.

    Example:
        >>> data = boxel.read("boxes.json", images="photos/")  # doctest: +SKIP
    """
    format = format or recognize(path)
    module = _module(format)
    options: dict[str, Any] = {"split": split} if module in (yolo, semantic) else {}
    if module is semantic:
        options["classes"] = classes
    elif classes is not None:
        raise BoxelError(
            f"{path}: this is a {format} set, which needs no class list; leave {classes} out, or name the format "
            "semantic."
        )
    return module.read(Path(path), None if images is None else Path(images), **options)


def write(data: Annotations, path: str | Path, format: str | None = None) -> None:
    """Write a data set; what the format cannot hold is told in a `ConversionWarning`.

    Args:
        data: the data set.
        path: the JSON file (COCO) or the folder (the others) to write.
        format: ``coco``, ``voc``, ``sbd``, ``yolo``, ``labelme``, ``salient`` or ``semantic``; COCO for a ``.json``
            file if not given.

    Raises:
        BoxelError: the format is unknown, the path cannot be written, or the folder holds a set of this format.
    """
    path = Path(path)
    if format is None:
        if path.suffix.lower() != ".json":
            raise BoxelError(f"{path}: name the format to write ({_known()}).")
        format = "coco"
    module = _module(format)
    # A COCO set is one file, which is replaced; of folders the old files would stay among the new.
    if module is not coco and path.is_dir() and module.recognize(path):
        raise BoxelError(
            f"{path}: there is a set in this format already; name a new folder, or remove this one."
        )
    try:
        losses = module.write(data, path)
    except OSError as error:
        raise BoxelError(
            f"{error.filename or path}: cannot be written ({error.strerror or error})."
        ) from error
    for loss in losses:
        warnings.warn(loss, ConversionWarning, stacklevel=2)


def _module(format: str) -> ModuleType:
    if format not in _FORMATS:
        raise BoxelError(
            f"{format!r} is no format boxel knows ({_known()}).{nearest(format, list(_FORMATS))}"
        )
    return _FORMATS[format]


def _known() -> str:
    return ", ".join(_FORMATS)

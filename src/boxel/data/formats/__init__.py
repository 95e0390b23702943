"""Read, write and convert datasets: one module per format, recognized by looking at the files.

Each module has `recognize(path) -> bool`, `read(path, images) -> Annotations` (YOLO's and semantic's take a split too,
and the latter a class list), which raises a `BoxelError` if there is no such dataset, and `write(data, path) ->
list[str]`, which returns a sentence per thing that the format cannot hold.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

from boxel.data.annotations import Annotations
from boxel.data.checks.geometry import describe_geometry
from boxel.data.checks.masks import describe_bad_masks, drop_bad_masks
from boxel.data.formats import (
    coco,
    cvat,
    fiftyone,
    label_studio,
    labelme,
    parquet,
    salient,
    sbd,
    semantic,
    voc,
    yolo,
)
from boxel.data.images import SUFFIXES, describe_missing
from boxel.data.issues import group_by_kind
from boxel.utils.errors import BoxelError, UsageError, check_path, nearest
from boxel.utils.files import atomic_path, is_file

__all__ = ["ConversionWarning", "convert", "read", "recognize", "write"]

logger = logging.getLogger(__name__)

# In the order in which they are tried. Semantic datasets have images/ and labels/ too, as YOLO's, but no texts in them.
_FORMATS: dict[str, ModuleType] = {
    "semantic": semantic,
    "yolo": yolo,
    "cvat": cvat,
    "label-studio": label_studio,
    "fiftyone": fiftyone,
    "voc": voc,
    "sbd": sbd,
    "labelme": labelme,
    "parquet": parquet,
    "coco": coco,
    "salient": salient,
}
_KNOWN = ", ".join(_FORMATS)
_SUFFIXES = {"coco": ".json", "parquet": ".parquet"}
"""Formats that are one file, which holds all that `Annotations` does; the others are folders."""

_FILES = [_FORMATS[name] for name in _SUFFIXES]


class ConversionWarning(UserWarning):
    """Something of a dataset is missing from what was written; the text states what and how much."""


def recognize(path: str | Path) -> str:
    """Recognize the format of a dataset.

    Args:
        path: Annotation file or folder of a dataset.

    Returns:
        ``coco``, ``cvat``, ``fiftyone``, ``label-studio``, ``labelme``, ``parquet``, ``salient``, ``sbd``,
        ``semantic``, ``voc`` or ``yolo``.

    Raises:
        BoxelError: There is nothing at the path, or nothing known.

    Examples:
        >>> from boxel.data import example_scenes
        >>> recognize(example_scenes().file)
        'coco'
    """
    check_path("data", path, "a path or Annotations")
    path = Path(path)
    try:
        if not path.exists():
            raise BoxelError(f"{path}: there is no such file or folder; check the path.")
        for name, module in _FORMATS.items():
            if module.recognize(path):
                return name
        if semantic.holds_label_maps(path):  # whose images are elsewhere
            return "semantic"
    except (OSError, ValueError) as error:
        raise BoxelError(f"{path}: cannot be opened ({error}); check the path.") from error
    files = [path] if path.is_file() else path.iterdir()
    if any(file.suffix.lower() in SUFFIXES for file in files):
        raise BoxelError(
            f"{path}: these are images, not a dataset; give the annotations, and the folder of the images as `images`."
        )
    raise BoxelError(f"{path}: no dataset of a known format ({_KNOWN}) is here; check the path.")


def read(
    path: str | Path,
    images: str | Path | None = None,
    format: str | None = None,
    split: str | None = None,
    class_list: str | Path | None = None,
) -> Annotations:
    """Read a dataset in any supported format.

    Boxes are enough: an instance without a mask is normal. An annotation that cannot be understood is left out and
    listed in `Annotations.issues`; the rest is read. Boxes that seem to be in another layout than their format has are
    logged, and read as they are.

    Args:
        path: A COCO or LabelMe JSON file, a ``data.yaml``, or the folder of a VOC, SBD, YOLO, LabelMe, salient or
            semantic dataset.
        images: Folder of the images; if None, searched for near the annotations.
        format: ``coco`` or another that `recognize` returns; recognized if None.
        split: ``train``, ``val`` or ``test`` of a YOLO dataset, as its ``data.yaml`` lists them, or of a semantic
            dataset, as its folders are called; all if None. Other formats have a file or a list per split and ignore
            this.
        class_list: Class list of a semantic dataset: a text that names the class of each value, or ``camvid``, ``voc``,
            ``cityscapes``, ``cityscapes-train-ids`` or ``pascal-context``; searched for in the dataset if None.

    Raises:
        BoxelError: The path, the format or the file as a whole is wrong, or there is a class list for another format.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes(2)
        >>> len(read(scenes.file, images=scenes.root))
        2
    """
    data = read_as_written(path, images, format, split, class_list)
    for sentence in describe_geometry(data):
        logger.warning("%s", sentence)
    return data


def read_as_written(
    path: str | Path,
    images: str | Path | None = None,
    format: str | None = None,
    split: str | None = None,
    class_list: str | Path | None = None,
) -> Annotations:
    """Read a dataset as `read` does, without a look at whether its boxes lie."""
    format = format or recognize(path)
    module = _module(format)
    options: dict[str, Any] = {"split": split} if module in (yolo, semantic) else {}
    if module is semantic:
        options["class_list"] = class_list
    elif class_list is not None:
        raise BoxelError(
            f"{path}: this is a {format} dataset, which needs no class list; leave out {class_list}, or name the "
            "format semantic."
        )
    return module.read(Path(path), None if images is None else Path(images), **options)


def write(data: Annotations, path: str | Path, format: str | None = None) -> None:
    """Write a dataset; what the format cannot hold is reported in a `ConversionWarning`.

    A file or a new folder appears only when it is complete.

    Args:
        data: The dataset.
        path: The file (COCO, Parquet) or the folder (other formats) to write.
        format: ``coco`` or another that `recognize` returns; if None, COCO for a ``.json`` file, Parquet for a
            ``.parquet`` file.

    Raises:
        BoxelError: The format is unknown, the path cannot be written, or the folder holds a dataset of this format.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes().without_masks()
        >>> write(scenes, scenes.root / "yolo", format="yolo")
        >>> recognize(scenes.root / "yolo")
        'yolo'
    """
    path = Path(path)
    module = _module_to_write(path, format, "format")
    # One file is replaced; in a folder the old files would stay among the new ones.
    if module not in _FILES and path.is_dir() and module.recognize(path):
        raise BoxelError(
            f"{path}: there is a dataset in this format already; name a new folder, or remove this one."
        )
    try:
        losses = _write(module, data, path)
    except OSError as error:
        raise BoxelError(
            f"{error.filename or path}: cannot be written ({error.strerror or error})."
        ) from error
    for loss in losses:
        warnings.warn(loss, ConversionWarning, stacklevel=2)


def convert(
    source: str | Path,
    target: str | Path,
    to: str | None = None,
    images: str | Path | None = None,
    format: str | None = None,
    class_list: str | Path | None = None,
) -> Annotations:
    """Read a dataset and write it in another format.

    Original ids survive: formats without ids get a small file beside them, ``boxel-ids.json``. What the target format
    cannot hold, e.g. holes of masks in YOLO, is reported in a `ConversionWarning` with the mask IoU that it costs,
    measured on what was written. What is wrong with the source is reported too, once per kind of issue.

    Args:
        source: Annotation file or folder of a dataset.
        target: The file (COCO, Parquet) or the folder (other formats) to write.
        to: ``coco`` or another that `recognize` returns; if None, COCO for a ``.json`` file, Parquet for a
            ``.parquet`` file.
        images: Folder of the images; searched for if None.
        format: Format of the source; recognized if None.
        class_list: Class list of a semantic dataset; see :func:`boxel.read`.

    Returns:
        The dataset as read, with its issues.

    Raises:
        BoxelError: The source cannot be read, all its images are missing and are to be put into a folder, or the target
            cannot be written.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes(2)
        >>> _ = convert(scenes.file, scenes.root / "voc", to="voc")
        >>> len(read(scenes.root / "voc"))
        2
    """
    module = _module_to_write(Path(target), to, "to")
    data = read(source, images, format, class_list=class_list)
    paths = [data.image_path(image) for image in range(len(data))]
    if module not in _FILES and paths and not any(map(is_file, paths)):
        raise BoxelError(f"{source}: {describe_missing(paths)}")
    for kind, issues in group_by_kind(data.issues).items():
        sentence = f"{len(issues)} x {kind}, the first: {issues[0].message}"
        warnings.warn(sentence, ConversionWarning, stacklevel=2)
    # COCO holds what is no mask as it is: nothing is lost, and other tools may read it.
    sound, sentences = (
        (data, describe_bad_masks(data, outcome="but are written as they are"))
        if module in _FILES
        else drop_bad_masks(data, outcome="only their boxes are written")
    )
    for sentence in sentences:
        warnings.warn(sentence, ConversionWarning, stacklevel=2)
    write(sound, target, to)
    return data


def _write(module: ModuleType, data: Annotations, path: Path) -> list[str]:
    """Write a dataset completely or not at all, unless into a folder that has other files already."""
    if module in _FILES or (path.is_dir() and any(path.iterdir())):
        return module.write(data, path)
    if path.is_file():
        raise BoxelError(f"{path}: cannot be written (it is a file); name a folder.")
    with atomic_path(path) as temporary:
        temporary.mkdir(parents=True)
        losses = module.write(data, temporary)
    return [loss.replace(str(temporary), str(path)) for loss in losses]


def _module_to_write(path: Path, format: str | None, setting: str) -> ModuleType:
    """Return the module of a format to write at a path; ``setting`` names the format in messages."""
    formats = {suffix: name for name, suffix in _SUFFIXES.items()}
    suffix = path.suffix.lower()
    format = format or formats.get(suffix)
    if format is None:
        raise BoxelError(f"{path}: name the format to write with `{setting}` ({_KNOWN}).")
    module = _module(format)
    if format in _SUFFIXES and suffix != _SUFFIXES[format]:
        title = "COCO" if module is coco else "Parquet"
        raise BoxelError(f"{path}: a {title} dataset is one file; end its name in {_SUFFIXES[format]}.")
    return module


def _module(format: str) -> ModuleType:
    if format not in _FORMATS:
        raise UsageError(f"{format!r} is not a known format ({_KNOWN}).{nearest(format, list(_FORMATS))}")
    return _FORMATS[format]

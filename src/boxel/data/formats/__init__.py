"""Read, write and convert datasets: one module per format, recognized by looking at the files.

Each module has `recognize(path) -> bool`, `read(path, images) -> Annotations` (YOLO's and semantic's take a split too,
and the latter a class list), which raises a `BoxelError` if there is no such dataset, and `write(data, path) ->
list[str]`, which returns a sentence per thing that the format cannot hold.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict

from boxel.data.annotations import Annotations
from boxel.data.checks.geometry import describe_geometry
from boxel.data.checks.masks import describe_bad_masks, drop_bad_masks
from boxel.data.formats import (
    coco,
    cvat,
    darknet,
    fiftyone,
    geojson,
    label_studio,
    labelme,
    parquet,
    salient,
    sbd,
    semantic,
    voc,
    yolo,
    yolo_obb,
)
from boxel.data.formats.layout import to_polygons
from boxel.data.formats.rotated import add_rotated_boxes
from boxel.data.formats.whole_folder import INCOMPLETE, check_complete, write_folder
from boxel.data.images import SUFFIXES, describe_missing
from boxel.data.issues import group_by_kind
from boxel.data.splits import make_split, select_split, standard_split
from boxel.utils.errors import BoxelError, UsageError, check_path, nearest
from boxel.utils.files import is_file
from boxel.utils.frames import is_video
from boxel.utils.urls import is_url

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ConversionWarning", "convert", "read", "recognize", "write"]

logger = logging.getLogger(__name__)

# In the order in which they are tried. Semantic datasets have images/ and labels/ too, as YOLO's, but no texts in them.
_FORMATS: dict[str, ModuleType] = {
    "semantic": semantic,
    "darknet": darknet,
    "yolo": yolo,
    "yolo-obb": yolo_obb,
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

_FILES = [*(_FORMATS[name] for name in _SUFFIXES), geojson]


class ConversionWarning(UserWarning):
    """Something of a dataset is missing from what was written; the text states what and how much."""


class WriteOptions(TypedDict, total=False):
    """What `write` and `convert` can be asked for.

    Attributes:
        polygons: Write polygons instead of pixels to COCO, CVAT and Label Studio; other formats of outlines have them
            anyway.
        simplify: Maximum distance in pixels of the outlines in COCO (with ``polygons``), CVAT, Label Studio, LabelMe
            and YOLO from their masks, 0 for none; if not given, it is chosen so that each outline keeps a mask IoU of
            0.99.
        untrusted: What becomes of a mask that is not trusted, or of a crowd, in YOLO: ``write`` (by default), or leave
            out its ``object`` or its ``image``.
    """

    polygons: bool
    simplify: float | None
    untrusted: str


class ConvertOptions(WriteOptions, total=False):
    """What `convert` can be asked for.

    Attributes:
        val_share: Share of the images to put into a split ``val``, the others into ``train``; see `make_split`.
        seed: Seed of that choice.
        group_by: Regular expression of file names: images that agree in it stay together.
        rotated: Add ``corners``, those of the smallest rotated rectangle around each mask, to its instance.
    """

    rotated: bool
    val_share: float | None
    seed: int
    group_by: str | None


def recognize(path: str | Path) -> str:
    """Recognize the format of a dataset.

    Args:
        path: Annotation file or folder of a dataset.

    Returns:
        ``coco``, ``cvat``, ``darknet``, ``fiftyone``, ``label-studio``, ``labelme``, ``parquet``, ``salient``,
        ``sbd``, ``semantic``, ``voc`` or ``yolo``.

    Raises:
        BoxelError: There is nothing at the path, or nothing known.

    Examples:
        >>> from boxel.data import example_scenes
        >>> recognize(example_scenes().file)
        'coco'
    """
    check_path("data", path, "a path or Annotations")
    _refuse_url(path)
    path = Path(path)
    try:
        if not path.exists():
            raise BoxelError(f"{path}: there is no such file or folder; check the path.")
        check_complete(path)
        if path.suffix.lower() == ".onnx" or all(
            (path / name).is_file() for name in ("model.safetensors", "config.yaml")
        ):
            raise BoxelError(f"{path}: this is a model, not a dataset; `boxel predict` uses it on images.")
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


def _refuse_url(path: str | Path) -> None:
    if is_url(str(path)):
        raise UsageError(
            f"{path}: datasets and images at a URL are for `boxel label --engine`; copy them to a folder here."
        )


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
        path: Annotation file or folder of a dataset, of any format that `recognize` returns, e.g. a ``data.yaml``.
        images: Folder of the images, or a video; if None, searched for near the annotations.
        format: ``coco`` or another that `recognize` returns; recognized if None.
        split: ``train``, ``val`` or another split that the dataset has; all if None. Ignored if it has none, as formats
            with a file or a list per split do.
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
    split = None if split is None else standard_split(split)
    options: dict[str, Any] = {"split": split} if module in (yolo, semantic) else {}
    if module is semantic:
        options["class_list"] = class_list
    elif class_list is not None:
        raise BoxelError(
            f"{path}: this is a {format} dataset, which needs no class list; leave out {class_list}, or name the "
            "format semantic."
        )
    _refuse_url(images or "")
    folder = None if images is None else Path(images)
    if folder and is_video(folder) and folder.is_file() and module is not cvat:  # it names itself there
        folder = folder.parent
    data = module.read(Path(path), folder, **options)
    return data if split is None or module is semantic else select_split(data, split)


def share_class_list(
    class_list: str | Path | None, *sources: Annotations | str | Path | None
) -> list[str | Path | None]:
    """Return the class list that `read` gets for each of several datasets: label maps alone, if some are label maps."""
    if class_list is None:
        return [None] * len(sources)
    own = [isinstance(source, str | Path) and recognize(source) == "semantic" for source in sources]
    return [class_list if is_own or not any(own) else None for is_own in own]


def write(
    data: Annotations, path: str | Path, format: str | None = None, **options: Unpack[WriteOptions]
) -> None:
    """Write a dataset; what the format cannot hold is reported in a `ConversionWarning`.

    A file or a new folder appears only when it is complete. It states the version of boxel and the date, after what
    made the dataset, in `info`.

    Args:
        data: The dataset.
        path: The file (COCO, Parquet, GeoJSON) or the folder (other formats) to write.
        format: ``coco`` or another that `recognize` returns, or ``geojson``; if None, COCO for a ``.json`` file,
            Parquet for a ``.parquet`` file, GeoJSON for a ``.geojson`` file.
        **options: See `WriteOptions`.

    Raises:
        BoxelError: The format is unknown, the path cannot be written, or the folder holds a dataset of this format.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes().without_masks()
        >>> write(scenes, scenes.root / "yolo", format="yolo")
        >>> recognize(scenes.root / "yolo")
        'yolo'
    """
    from boxel.data.provenance import add_record, describe_run

    write_as_given(add_record(data, describe_run("boxel.write")), path, format, **options)


def write_as_given(
    data: Annotations, path: str | Path, format: str | None = None, **options: Unpack[WriteOptions]
) -> None:
    """Write a dataset as `write` does, with no other record than it has."""
    path = Path(path)
    module = _module_to_write(path, format)
    # One file is replaced; in a folder the old files would stay among the new ones.
    folder = module not in _FILES and path.is_dir() and not (path / INCOMPLETE).exists()
    if folder and module.recognize(path):
        raise BoxelError(
            f"{path}: there is a dataset in this format already; name a new folder, or remove this one."
        )
    try:
        losses = _write(module, data, path, options)
    except OSError as error:
        raise BoxelError(
            f"{error.filename or path}: cannot be written ({error.strerror or error})."
        ) from error
    except UnicodeEncodeError as error:
        what = (
            error.object[max(error.start - 10, 0) : error.end + 10]
            .encode("utf-8", "backslashreplace")
            .decode()
        )
        raise BoxelError(
            f"{path}: cannot be written, since {what!r} is not valid text; rename it."
        ) from error
    for loss in losses:
        warnings.warn(loss, ConversionWarning, stacklevel=3)


def convert(
    source: str | Path,
    target: str | Path,
    format: str | None = None,
    images: str | Path | None = None,
    source_format: str | None = None,
    class_list: str | Path | None = None,
    **options: Unpack[ConvertOptions],
) -> Annotations:
    """Read a dataset and write it in another format.

    Original ids survive: formats without ids get a small file beside them, ``boxel-ids.json``. What the target format
    cannot hold, e.g. each pixel of a mask in YOLO, is reported in a `ConversionWarning` with the mask IoU that it
    costs, measured on what was written. What is wrong with the source is reported too, once per kind of issue.

    Args:
        source: Annotation file or folder of a dataset.
        target: The file (COCO, Parquet, GeoJSON) or the folder (other formats) to write.
        format: As for `write`.
        images: Folder of the images; searched for if None.
        source_format: Format of the source; recognized if None.
        class_list: Class list of a semantic dataset; see :func:`boxel.read`.
        **options: See `ConvertOptions`.

    Returns:
        The dataset as read, but for the masks that are left out as they are none, with its issues.

    Raises:
        BoxelError: The source cannot be read, all its images are missing and are to be put into a folder, or the target
            cannot be written.

    Examples:
        >>> from boxel.data import example_scenes
        >>> scenes = example_scenes(2)
        >>> _ = convert(scenes.file, scenes.root / "voc", format="voc")
        >>> len(read(scenes.root / "voc"))
        2
    """
    from boxel.data.provenance import add_record, describe_input, describe_run

    module = _module_to_write(Path(target), format)
    if Path(source).resolve() == Path(target).resolve():
        raise UsageError(
            f"{target}: this is the dataset to convert; name another file or folder for the result."
        )
    others: dict[str, Any] = dict(options)
    split = {name: others.pop(name) for name in ("val_share", "seed", "group_by") if name in others}
    rotated = others.pop("rotated", False)
    if rotated and module is yolo_obb:
        raise UsageError("yolo-obb has the rotated boxes of masks in any case; leave out `rotated`.")
    _check_options(module, others, Path(target))
    data = read(source, images, source_format, class_list=class_list)
    if split.get("val_share") is not None:
        data = make_split(data, **split)
    elif split:
        raise UsageError(
            f"`{next(iter(split))}` is for `val_share`; give the share of the images to validate on."
        )
    paths = [data.image_path(image) for image in range(len(data))]
    if module not in _FILES and paths and not any(map(is_file, paths)):
        raise BoxelError(f"{source}: {describe_missing(paths)}")
    for kind, issues in group_by_kind(data.issues).items():
        sentence = f"{len(issues)} x {kind}, the first: {issues[0].message}"
        warnings.warn(sentence, ConversionWarning, stacklevel=2)
    # COCO holds what is not a mask as it is: nothing is lost, and other tools may read it.
    sound, sentences = (
        (data, describe_bad_masks(data, outcome="but are written as they are"))
        if module in _FILES
        else drop_bad_masks(data, outcome="only their boxes remain")
    )
    for sentence in sentences:
        warnings.warn(sentence, ConversionWarning, stacklevel=2)
    sound = add_rotated_boxes(sound) if rotated else sound
    made = describe_run("boxel.convert") | {"input": describe_input(source, data)}
    write_as_given(add_record(sound, made), target, format, **others)
    return sound


def _write(module: ModuleType, data: Annotations, path: Path, options: WriteOptions) -> list[str]:
    """Write a dataset completely or not at all."""
    _check_options(module, options, path)
    if module in _FILES:
        data, losses = to_polygons(data, options.get("simplify")) if options.get("polygons") else (data, [])
        return [*losses, *module.write(data, path)]
    own = {name: value for name, value in options.items() if name in getattr(module, "OPTIONS", ())}
    return write_folder(path, partial(module.write, data, **own))


def _check_options(module: ModuleType, options: Mapping[str, Any], path: Path) -> None:
    """Refuse options that the format has no use for."""
    tolerance = options.get("simplify")
    if tolerance is not None and not 0 <= tolerance < float("inf"):
        raise UsageError(f"`simplify` is {tolerance}; give a number of pixels, 0 for exact outlines.")
    known = {*getattr(module, "OPTIONS", ())}
    if (module in _FILES and module is not geojson) or "simplify" in known:
        known.add("polygons")
    if module in _FILES and options.get("polygons"):
        known.add("simplify")
    for name, value in options.items():
        if name not in known and value not in (None, False):
            lacking = module in _FILES and name == "simplify"
            remedy = " without `polygons`; add it." if lacking else "; leave it out."
            raise UsageError(f"{path}: `{name}` has no effect on this format{remedy}")


def _module_to_write(path: Path, format: str | None) -> ModuleType:
    """Return the module of a format to write at a path, which may decide it."""
    formats = {suffix: name for name, suffix in _SUFFIXES.items()}
    suffix = path.suffix.lower()
    if suffix == geojson.SUFFIX and format in (None, "geojson"):  # which is written only
        return geojson
    format = format or formats.get(suffix)
    if format is None:
        raise BoxelError(f"{path}: name the format to write with `format` ({_KNOWN}).")
    module = _module(format)
    if format in _SUFFIXES and suffix != _SUFFIXES[format]:
        title = "COCO" if module is coco else "Parquet"
        raise BoxelError(f"{path}: a {title} dataset is one file; end its name in {_SUFFIXES[format]}.")
    return module


def _module(format: str) -> ModuleType:
    if format not in _FORMATS:
        raise UsageError(f"{format!r} is not a known format ({_KNOWN}).{nearest(format, list(_FORMATS))}")
    return _FORMATS[format]

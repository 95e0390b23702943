"""Find the label maps and images of a semantic dataset, and match them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from boxel.data.formats.layout import image_suffix
from boxel.data.formats.voc import read_image_set
from boxel.data.formats.yolo_files import SPLITS
from boxel.data.images import SUFFIXES
from boxel.data.label_maps import label_map_size
from boxel.utils.errors import BoxelError

LABEL_IDS, TRAIN_IDS = "_gtFine_labelIds", "_gtFine_labelTrainIds"
"""Endings of Cityscapes' two kinds of label maps."""

_ENDINGS = (LABEL_IDS, TRAIN_IDS, "_leftImg8bit", "_L")  # in which an image and its label map may differ

# A folder of label maps, and the folder of their images beside it.
_HALVES = (("gtFine", "leftImg8bit"), ("labels", "images"))

Place = tuple[Path, Path | None]


@dataclass(frozen=True)
class Layout:
    """The folders of a semantic dataset.

    Attributes:
        root: The folder that contains them; a class list may be in it.
        places: Folders of label maps, each with the folder of its images, or None if that is unknown.
        listed: The text with the names of the images to read, None for all.
    """

    root: Path
    places: list[Place]
    listed: Path | None = None


def find_layout(path: Path, split: str | None = None) -> Layout:
    """Find the folders that a path stands for.

    Args:
        path: A root (``labels`` and ``images``; ``gtFine`` and ``leftImg8bit``; ``train`` and ``trainannot``), or a
            folder of label maps, whose images may be in a usual place.
        split: The only split wanted: a folder in those, else what ``SPLIT.txt`` in the path lists, else all.

    Raises:
        BoxelError: The root has splits, but not this one.
    """
    splits, places = _splits(path)
    if split in splits:
        return Layout(path, [splits[split]])
    if split is not None and splits:
        raise BoxelError(f"{path}: it has no split {split!r}, but {', '.join(splits)}.")
    text = path / f"{split}.txt"
    listed = text if split is not None and text.is_file() else None
    if places:
        return Layout(path, places, listed)
    images = _guess_images(path)
    root = path.parent if images is None else Path(os.path.commonpath((os.path.abspath(path), images)))
    return Layout(root, [(path, images)], listed)


def _splits(path: Path) -> tuple[dict[str, Place], list[Place]]:
    """Return the places of a root by split, and all of them."""
    for labels, images in ((path / labels, path / images) for labels, images in _HALVES):
        if labels.is_dir() and images.is_dir():
            both = [split for split in SPLITS if (labels / split).is_dir() and (images / split).is_dir()]
            return {split: (labels / split, images / split) for split in both}, [(labels, images)]
    both = [split for split in SPLITS if (path / split).is_dir() and (path / f"{split}annot").is_dir()]
    annotated: dict[str, Place] = {split: (path / f"{split}annot", path / split) for split in both}
    return annotated, list(annotated.values())


def _guess_images(labels: Path) -> Path | None:
    """Return the usual folder of the images for a folder of label maps, if it exists."""
    labels = Path(os.path.abspath(labels))
    candidates = [
        *(_swapped(labels, *names) for names in _HALVES),
        labels.parent / (labels.name.removesuffix("annot") or labels.name),
        labels.parent / "JPEGImages",
    ]
    return next((folder for folder in candidates if folder != labels and folder.is_dir()), None)


def _swapped(path: Path, old: str, new: str) -> Path:
    """Return the path with the last part of one name renamed."""
    parts = list(path.parts)
    if old in parts:
        parts[len(parts) - 1 - parts[::-1].index(old)] = new
    return Path(*parts)


def label_files(folder: Path, first: str = LABEL_IDS) -> list[Path]:
    """Find the label maps in a folder, recursively: PNGs, or MATLAB files if there are none.

    Args:
        folder: Where to look.
        first: Which of Cityscapes' two kinds to take if both exist.
    """
    files = sorted(file for file in folder.rglob("*") if _may_be_label_map(file))
    kinds = [
        *([p for p in files if p.stem.endswith(kind)] for kind in (first, LABEL_IDS, TRAIN_IDS)),
        [p for p in files if p.suffix.lower() == ".png"],
    ]
    return next(filter(None, kinds), files)


def holds_label_maps(folder: Path) -> bool:
    """Return whether label maps are in a folder or not far below it, wherever their images are."""
    found = (file for pattern in ("*", "*/*", "*/*/*") for file in folder.glob(pattern))
    # A few are enough: Cityscapes has a color picture beside each of its label maps.
    return any(map(_is_label_map, islice(filter(_may_be_label_map, found), 3)))


def _may_be_label_map(file: Path) -> bool:
    return file.suffix.lower() in (".png", ".mat") and file.is_file()


def _is_label_map(file: Path) -> bool:
    try:
        label_map_size(file)
    except BoxelError:
        return False
    return True


def image_files(folder: Path, labels: Sequence[Path]) -> list[Path]:
    """Find the images in a folder, recursively, without the label maps that may be among them."""
    beside = set(labels)
    return [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in SUFFIXES and p not in beside]


def match_images(
    labels: Sequence[Path], label_folder: Path, images: Sequence[Path], image_folder: Path
) -> list[tuple[Path, Path | None]]:
    """Return each label map with the image of its stem, None if there is none.

    An ending that only one of the two has, e.g. ``_gtFine_labelIds``, is ignored. If stems are not unique, their
    folders must be the same too.
    """
    by_path = any(len({file.stem for file in files}) < len(files) for files in (labels, images))

    def name(file: Path, folder: Path, stem: str) -> Path:
        return file.relative_to(folder).parent / stem if by_path else Path(stem)

    known = {name(image, image_folder, bare_stem(image)): image for image in reversed(images)}
    known |= {name(image, image_folder, image.stem): image for image in reversed(images)}
    return [
        (
            label,
            known.get(name(label, label_folder, label.stem))
            or known.get(name(label, label_folder, bare_stem(label))),
        )
        for label in labels
    ]


def read_listed(text: Path) -> set[str]:
    """Read the images that the list of a split names, each as `bare_stem`.

    Raises:
        BoxelError: It cannot be read, or names none.
    """
    names = read_image_set(text)
    if not names:
        raise BoxelError(f"{text}: it lists no image; write one name per line, or remove it.")
    return {bare_stem(Path(name if name.endswith(image_suffix(name)) else f"{name}.jpg")) for name in names}


def bare_stem(file: Path) -> str:
    """Return the stem of an image or its label map, the same for both."""
    ending = next((ending for ending in _ENDINGS if file.stem.endswith(ending)), "")
    return file.stem.removesuffix(ending)

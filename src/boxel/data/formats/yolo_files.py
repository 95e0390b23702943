"""Find the images and labels of a YOLO dataset: as its ``data.yaml`` lists them, or by its folders.

A place is an image folder with its label folder, or an image file with its label file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from boxel.data.formats.builder import Builder, read_bytes
from boxel.data.images import SUFFIXES
from boxel.utils.errors import BoxelError
from boxel.utils.files import is_file

Place = tuple[Path, Path]

SPLITS = ("train", "val", "test")


def listed_places(
    config: dict[str, Any], file: Path, images: Path | None, split: str | None, rows: Builder
) -> list[Place]:
    """Return what the content of a ``data.yaml`` lists: folders, or texts with one image file per line.

    The folder ``images``, if given, replaces every ``images/``, and of the splits only ``split`` is wanted. If some
    listed entries exist, each that does not becomes an issue.
    """
    entries = {name: _entries(config.get(name)) for name in SPLITS}
    if split is not None and any(entries.values()):
        entries = {split: entries.get(split, [])}
        if not entries[split]:
            raise BoxelError(f"{file}: it lists no `{split}`; add it, or name the folder of its images.")
    starts = [file.parent]
    if isinstance(config.get("path"), str):
        starts.insert(0, file.parent / config["path"])
    found: dict[Path, list[Place]] = {}
    missing = []
    for name, listed in entries.items():
        for entry in listed:
            place = _find(entry, starts)
            if place is None:
                missing.append(f"its `{name}`, {entry}, does not exist")
            elif place.resolve() not in found:
                found[place.resolve()] = list(_places_in(place, starts, images))
    if missing and split is not None and not found:
        raise BoxelError(f"{file}: {missing[0]}; correct it, or name the folder of its images.")
    for what in missing if found else []:
        rows.report("bad-file", file, f"{what}; it is left out.")
    return [place for places in found.values() for place in places]


def _entries(listed: Any) -> list[str]:
    entries = listed if isinstance(listed, list) else [listed]
    return [entry for entry in entries if isinstance(entry, str) and entry]


def _find(entry: str, starts: Sequence[Path]) -> Path | None:
    """Find a listed folder (of which only the labels may exist) or text."""
    # Some tools list their folders as if data.yaml lay a folder deeper.
    for path in [start / name for start in starts for name in (entry, entry.removeprefix("../"))]:
        with contextlib.suppress(OSError, ValueError):  # a name that is too long, or with a null byte
            if path.is_dir() or label_folder(path).is_dir() or (path.suffix == ".txt" and path.is_file()):
                return path
    return None


def _places_in(path: Path, starts: Sequence[Path], images: Path | None) -> Iterator[Place]:
    if path.suffix != ".txt":
        yield path if images is None else images / (_below_images(path) or "."), label_folder(path)
        return
    for line in read_bytes(path).decode("utf-8", "replace").split("\n"):
        if name := line.strip().replace("\0", "_"):
            candidates = [start / name for start in (path.parent, *starts)]
            image = next(filter(is_file, candidates), candidates[0])
            labels = label_folder(image)
            yield (
                image if images is None else images / (_below_images(image) or image.name),
                labels.parent / f"{labels.stem or '_'}.txt",
            )


def folder_places(folder: Path) -> Iterator[Place]:
    """Yield the image and label folders of a dataset without a ``data.yaml`` that lists them."""
    beside = label_folder(folder)
    if beside != folder and beside.is_dir():
        yield folder, beside
        return
    # labels/ or labels/train, and train/labels
    found = [labels for labels in (folder / "labels", *sorted(folder.glob("*/labels"))) if labels.is_dir()]
    for labels in found:
        yield labels.parent / "images", labels
    if (
        not found
        and any(folder.glob("*.txt"))
        and any(p.suffix.lower() in SUFFIXES for p in folder.iterdir())
    ):
        yield folder, folder


def label_folder(images: Path) -> Path:
    """Return the label folder of an image folder: the last ``images`` in its path becomes ``labels``."""
    below = _below_images(images)
    return images if below is None else Path(*images.parts[: -1 - len(below.parts)], "labels", below)


def _below_images(path: Path) -> Path | None:
    """Return what follows the last ``images`` in a path; None if there is none."""
    parts = path.parts
    if "images" not in parts:
        return None
    return Path(*parts[len(parts) - parts[::-1].index("images") :])


def files_in(places: Sequence[Place]) -> list[tuple[Path, Path | None]]:
    """Return image and label file of every image that has either; a missing image is assumed to be a ``.jpg``."""
    files: dict[str, tuple[Path, Path | None]] = {}
    for images, labels in places:
        for image, label in _pair_files(images, labels):
            name = os.path.normpath(image)  # two places may have the same image
            if name not in files or files[name][1] is None:
                files[name] = image, label
    return list(files.values())


def _pair_files(images: Path, labels: Path) -> Iterator[tuple[Path, Path | None]]:
    if labels.suffix == ".txt":
        yield images, labels if is_file(labels) else None
        return
    image_files = {
        p.relative_to(images).with_suffix(""): p
        for p in sorted(images.rglob("*"))
        if p.suffix.lower() in SUFFIXES and p.is_file()
    }
    texts = {
        p.relative_to(labels).with_suffix(""): p
        for p in sorted(labels.rglob("*.txt"))
        if p.name != "classes.txt" and p.is_file()
    }
    if images == labels:  # a flat folder may hold other texts too
        texts = {key: file for key, file in texts.items() if key in image_files}
    for key in sorted(image_files.keys() | texts.keys()):
        yield image_files.get(key, images / f"{key}.jpg"), texts.get(key)

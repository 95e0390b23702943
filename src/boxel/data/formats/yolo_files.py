"""Find the images, labels and splits of a YOLO dataset: as its ``data.yaml`` lists them, or by its folders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from boxel.data.formats.builder import Builder, read_utf8
from boxel.data.formats.names import ImageFinder, files_below, in_either_case, named_folder
from boxel.data.image_names import split_path, to_posix
from boxel.data.images import SUFFIXES
from boxel.data.splits import SPLITS, split_name, standard_split
from boxel.utils.errors import BoxelError
from boxel.utils.files import is_file
from boxel.utils.frames import frame_stem

CLASS_LISTS = ("classes.txt", "obj.names", "predefined_classes.txt")

OTHER_KEYS = {
    *("path", "names", "nc", "task", "kpt_shape", "flip_idx"),
    *("download", "roboflow", "channels", "yaml_file"),
}
"""Keys of a ``data.yaml`` that name no split."""


class Place(NamedTuple):
    """An image folder with its label folder, or an image file with its label file, and the split they belong to."""

    images: Path
    labels: Path
    split: str | None = None


class Pair(NamedTuple):
    """An image, which may be missing, its label file if there is one, and its split."""

    image: Path
    labels: Path | None
    split: str | None

    @property
    def key(self) -> str:
        """The path below ``images`` or ``labels`` without suffix, which ids files know it by."""
        file = self.labels or self.image
        below = filter(None, (below_folder(file.parent, name) for name in ("images", "labels")))
        return (min(below, key=lambda path: len(path.parts), default=Path()) / file.stem).as_posix()


class NoSplitError(BoxelError):
    """A dataset is one split, and not the one that is asked for."""


def listed_places(
    config: Mapping[str, Any], file: Path, images: Path | None, split: str | None, rows: Builder
) -> list[Place]:
    """Return what the content of a ``data.yaml`` lists: folders, or texts with one image file per line.

    The folder ``images``, if given, replaces every ``images/``, and of the splits only ``split`` is wanted. If some
    listed entries exist, each that does not becomes an issue.
    """
    entries: dict[str, list[str]] = {name: [] for name in SPLITS}
    for key, value in config.items():
        name = standard_split(key)
        if name in SPLITS or _lists_images(key, value):
            entries[name] = [*entries.get(name, []), *_entries(value)]
    if split is not None and any(entries.values()):
        undivided = sum(map(bool, entries.values())) == 1
        entries = {split: entries.get(split, [])}
        if not entries[split]:
            raise (NoSplitError if undivided else BoxelError)(
                f"{file}: it lists no `{split}`; add it, or name the folder of its images."
            )
    starts = [file.parent]
    if isinstance(config.get("path"), str) and config["path"] not in _NOTHING:
        starts.insert(0, file.parent / to_posix(config["path"]))
    finder = ImageFinder(file.parent)
    found: dict[Path, list[Place]] = {}
    missing = []
    for name, listed in entries.items():
        for entry in listed:
            place = _find(entry, starts)
            if place is None:
                missing.append(f"its `{name}`, {entry}, does not exist")
                continue
            places = [p._replace(split=name) for p in _places_in(place, starts, images, finder)]
            if place.resolve() not in found:
                found[place.resolve()] = places
            elif any(p.split != name for p in found[place.resolve()]):  # of two splits, hence of none
                found[place.resolve()] = [p._replace(split=None) for p in found[place.resolve()]]
    if missing and split is not None and not found:
        raise BoxelError(f"{file}: {missing[0]}; correct it, or name the folder of its images.")
    for what in missing if found else []:
        rows.report("bad-file", file, f"{what}; it is left out.")
    listed_now = [p for places in found.values() for p in places]
    return listed_now if missing else _without_lone_split(listed_now)


_NOTHING = ("", "~", "null", "Null", "NULL")


def _lists_images(key: str, value: Any) -> bool:
    """Return whether a key names another split than the usual ones: folders below ``images``."""
    entries = _entries(value)
    return key not in OTHER_KEYS and all("images" in split_path(e.lower()) for e in entries)


def _entries(listed: Any) -> list[str]:
    entries = listed if isinstance(listed, list) else [listed]
    return [entry for entry in entries if isinstance(entry, str) and entry not in _NOTHING]


def _without_lone_split(places: list[Place]) -> list[Place]:
    """If all images are one split, which is in no folder of that name, there is no split."""
    if len({place.split for place in places}) > 1:
        return places
    named = all(any(split_name(part) for part in place.images.parts[-3:]) for place in places)
    return places if named else [place._replace(split=None) for place in places]


def _find(entry: str, starts: Sequence[Path]) -> Path | None:
    """Find a listed folder (of which only the labels may exist) or text, which another machine may have listed."""
    stated = to_posix(entry).rstrip("/") or "/"
    parts = split_path(entry)
    # Some tools list their folders as if data.yaml lay a folder deeper; absolute paths are tried from each folder on.
    names = [stated, stated.removeprefix("../"), *("/".join(parts[k:]) for k in range(len(parts)))]
    for path in [start / name for name in names for start in starts]:
        with contextlib.suppress(OSError, ValueError):  # a name that is too long, or with a null byte
            is_list = path.suffix.lower() == ".txt" and path.is_file()
            if is_list or path.is_dir() or label_folder(path).is_dir():
                return path
    return None


def _places_in(
    path: Path, starts: Sequence[Path], images: Path | None, finder: ImageFinder
) -> Iterator[Place]:
    if path.suffix.lower() != ".txt":
        yield Place(path if images is None else images / (below_folder(path) or "."), label_folder(path))
        return
    for image in read_list(path, [path.parent, *starts], finder):
        labels = label_folder(image)
        own = image if images is None else images / (below_folder(image) or image.name)
        yield Place(own, in_either_case(labels.parent / f"{labels.stem or '_'}.txt"))


def read_list(file: Path, starts: Sequence[Path], finder: ImageFinder) -> Iterator[Path]:
    """Yield the image files that a text lists, one per line, by names that another machine may have written."""
    for line in read_utf8(file).decode("utf-8", "replace").replace("\r", "\n").split("\n"):
        if name := to_posix(line.strip()):
            candidates = [start / name for start in starts]
            exact = next(filter(is_file, candidates), None)
            if exact is None and (found := finder.find(name)):
                exact = finder.folder / found
            yield exact or candidates[0]


def folder_places(folder: Path) -> Iterator[Place]:
    """Yield the image and label folders of a dataset without a ``data.yaml`` that lists them."""
    beside = label_folder(folder)
    if beside != folder and beside.is_dir():
        yield Place(folder, beside)
        return
    # labels/ or labels/train, and train/labels
    tops = (folder, *sorted(top for top in folder.glob("*/") if not top.name.startswith(".")))
    found = [labels for top in tops if (labels := named_folder(top, "labels")).is_dir()]
    for labels in found:
        images = named_folder(labels.parent, "images")
        if not images.is_dir() and (labels.parent / "data").is_dir():
            images = labels.parent / "data"
        split = None if labels.parent == folder else split_name(labels.parent.name)
        yield Place(images, labels, split)
    has_images = any(file.suffix.lower() in SUFFIXES for file in folder.iterdir())
    if not found and has_images and any(folder.glob("*.[tT][xX][tT]")):
        yield Place(folder, folder)


def label_folder(images: Path) -> Path:
    """Return the label folder of an image folder: the last ``images`` in its path becomes ``labels``."""
    return swap_folder(images, "images", "labels")


def swap_folder(path: Path, old: str, new: str) -> Path:
    """Return a path whose last folder of one name, in any case, has another; the path itself if there is none."""
    below = below_folder(path, old.lower())
    return path if below is None else named_folder(Path(*path.parts[: -1 - len(below.parts)]), new) / below


def below_folder(path: Path, name: str = "images") -> Path | None:
    """Return what follows the last folder of a name, in any case, in a path; None if there is none."""
    parts = [part.lower() for part in path.parts]
    if name not in parts:
        return None
    return Path(*path.parts[len(parts) - parts[::-1].index(name) :])


def find_pairs(places: Sequence[Place], rows: Builder) -> list[Pair]:
    """Return image and label file of every image that has either; a missing image is assumed to be a ``.jpg``.

    An image without a stated split belongs to the one that its first folder below ``images`` is called like.
    """
    pairs: dict[str, Pair] = {}
    for place in places:
        for pair in _pair_files(place, rows):
            name = os.path.normpath(pair.image)  # two places may have the same image
            if name not in pairs:
                pairs[name] = pair
                continue
            old = pairs[name]
            pairs[name] = Pair(old.image, old.labels or pair.labels, old.split or pair.split)
    return list(pairs.values())


def _pair_files(place: Place, rows: Builder) -> Iterator[Pair]:
    images, labels, split = place
    if labels.suffix.lower() == ".txt":
        yield Pair(images, labels if is_file(labels) else None, split)
        return
    image_files: dict[Path, list[Path]] = {}
    for path in files_below(images):
        image_files.setdefault(path.relative_to(images).with_suffix(""), []).append(path)
    texts = {
        p.relative_to(labels).with_suffix(""): p
        for p in files_below(labels, {".txt"})
        if p.name.lower() not in CLASS_LISTS
    }
    if images == labels:  # a flat folder may hold other texts too
        texts = {key: file for key, file in texts.items() if key in image_files}
    for key in sorted(image_files.keys() | texts.keys()):
        files = image_files.get(key, [images / f"{key}.jpg"])
        if len(files) > 1 and key in texts:
            names = " and ".join(file.name for file in files)
            what = f"{names} both have this label file; rename one, and its labels."
            rows.report("ambiguous-image", texts[key], what, repair="")
        for file in files:
            yield Pair(file, texts.get(key), split)


def assign_splits(pairs: Sequence[Pair], listed: Sequence[Place]) -> list[Pair]:
    """Give each pair without a split the one that it is listed in; if none is listed, that of its folder.

    The folder is the first below ``images``.
    """
    if not listed:
        below = [below_folder(pair.image) for pair in pairs]
        named = [split_name(path.parts[0]) if path and len(path.parts) > 1 else None for path in below]
        return [p._replace(split=p.split or name) for p, name in zip(pairs, named, strict=True)]
    splits = {os.path.abspath(place.images): place.split for place in listed}
    found = []
    for pair in pairs:
        image = os.path.abspath(pair.image)
        folders = (image, *map(str, Path(image).parents))
        found.append(pair._replace(split=next((splits[f] for f in folders if f in splits), None)))
    return found


def nested_name(path: str, split: str | None) -> list[str]:
    """Return folders and stem of an image below its split, without those that lead to it.

    Examples:
        >>> nested_name("images/train/a/1.jpg", "train"), nested_name("valid/images/2.jpg", "val")
        (['a', '1'], ['2'])
    """
    parts = split_path(path)
    folders = [part for part in parts[:-1] if part.lower() != "images"]
    while folders and split is not None and split in (folders[0], split_name(folders[0])):
        folders.pop(0)
    return [*folders, frame_stem(parts[-1]) or PurePosixPath(parts[-1]).stem if parts else ""]

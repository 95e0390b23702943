"""Find the images that a dataset names, whatever machine wrote the names."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from boxel.data.image_names import NameIndex, fold_name, split_path, to_posix
from boxel.data.images import SUFFIXES, image_size
from boxel.utils.errors import BoxelError
from boxel.utils.files import is_file
from boxel.utils.frames import VIDEO_SUFFIXES, name_frame, split_frame, stored_in

logger = logging.getLogger(__name__)

_MAX_DEPTH = 4  # of the folders that are searched, so that a wrong folder costs little


def stay_inside(stated: str) -> str:
    r"""Return a stated name as a relative path that does not leave its folder; empty if nothing of it is left.

    Examples:
        >>> stay_inside(r"C:\data\..\a.jpg"), stay_inside("/etc/a.jpg")
        ('data/a.jpg', 'etc/a.jpg')
    """
    return "/".join(split_path(stated))


def is_hidden(path: Path) -> bool:
    """Return whether this is not an image or a label but what macOS writes beside it, or another hidden file."""
    return path.name.startswith("._") or path.name == ".DS_Store"


def named_folder(parent: Path, name: str) -> Path:
    """Return the folder of a name, which other systems may have written with capitals."""
    spellings = [parent / spelling for spelling in (name, name.capitalize(), name.upper())]
    return next((folder for folder in spellings if folder.is_dir()), spellings[0])


def list_files(folder: Path, *suffixes: str) -> list[Path]:
    """List the files in a folder with one of some suffixes, in any case; hidden files are passed over."""
    if not folder.is_dir():
        return []
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    )


def in_either_case(file: Path) -> Path:
    """Return a file, or the one whose suffix is in capitals if there is only that."""
    capitals = file.with_suffix(file.suffix.upper())
    return capitals if not is_file(file) and is_file(capitals) else file


def files_below(folder: Path, suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """List the files with some suffixes in a folder and all below it; hidden files and folders are passed over."""
    files = sorted(folder / name for name in _walk(folder, suffixes))
    return [file for file in files if file.is_file()]


def find_file(path: Path, name: str, is_right: Callable[[Path], bool]) -> Path | None:
    """Return the file of a format that is one: the path itself, the usual name in it, or one of the same suffix.

    ``is_right`` looks into a file that has the suffix of the usual name.
    """
    suffix = PurePosixPath(name).suffix
    files = [path] if path.is_file() else [path / name, *list_files(path, suffix)[:3]]
    return next((f for f in files if f.suffix.lower() == suffix and f.is_file() and is_right(f)), None)


def folder_beside(file: Path, name: str) -> Path:
    """Return the folder of the images of a file: the one of a name beside it if there is one, else its own."""
    return file.parent / name if (file.parent / name).is_dir() else file.parent


class ImageFinder:
    """The image files of a folder, found by names that other machines have written.

    Args:
        folder: The folder that the names are relative to.
        suffixes: Suffixes of the files that are searched.
        depth: Folders below the first that are searched.

    Examples:
        >>> from boxel.data import example_scenes
        >>> ImageFinder(example_scenes().root.parent).find("C:\\\\data\\\\images\\\\000000.PNG")
        'images/000000.png'
    """

    def __init__(self, folder: Path, suffixes: Collection[str] = SUFFIXES, depth: int = _MAX_DEPTH) -> None:
        self.folder, self.suffixes, self.depth = folder, suffixes, depth

    def find(self, stated: str, stem: str | None = None) -> str | None:
        """Find the one image that a name stands for.

        The first that is there counts of: the name as it is written; what follows one of its slashes; an image of the
        same base name in any folder below; one of the same stem with another suffix, or of another stem that is given.
        Case does not matter for the last three. If several files fit equally well, none is chosen. For a frame, its
        video is searched for in this way.

        Args:
            stated: The name as the dataset states it.
            stem: Stem of the label file of the image, to try last.

        Returns:
            The path relative to the folder, with slashes; None if there is no such image, or more than one.
        """
        name, parts = to_posix(stated), split_path(stated)
        if parts and is_file(self.folder / name):
            return name
        if frame := split_frame(name):
            video = self.videos.find(frame[0])
            return None if video is None else name_frame(video, frame[1])
        if self.is_empty:
            return None
        for start in range(len(parts)):
            if (tail := "/".join(parts[start:])) in self._known:
                return tail
        found = self.find_equal(stated)
        found = found if len(found) == 1 or not stem else self.find_equal(stem)
        return found[0] if len(found) == 1 else None

    def find_equal(self, stated: str) -> list[str]:
        """Find the images below the folder that fit a name equally well by their base name, or else by their stem."""
        return [self._index.paths[k] for k in self._index.find(stated)]

    def find_beside(self, label: str) -> str | None:
        """Find the one image that has the folder and the stem of a label file, which is given without its suffix."""
        parent, _, stem = fold_name(label).rpartition("/")
        found = [self._index.paths[k] for k in self._index.by_stem.get(stem, [])]
        found = [path for path in found if fold_name(path).rpartition("/")[0] == parent]
        found = [path for path in found if _without_suffix(path) == label] or found
        return found[0] if len(found) == 1 else None

    def read_size(self, stated: str) -> tuple[int, int]:
        """Return the (width, height) of the image that a name stands for; zeros if it cannot be read."""
        try:
            return image_size(self.folder / (self.find(stated) or stated))
        except BoxelError:
            return 0, 0

    @property
    def is_empty(self) -> bool:
        """There is no image in the folder."""
        return not self._known

    @cached_property
    def videos(self) -> ImageFinder:
        """Finds the videos of the folder."""
        return ImageFinder(self.folder, VIDEO_SUFFIXES)

    @cached_property
    def _index(self) -> NameIndex:
        return NameIndex(list(_walk(self.folder, self.suffixes, self.depth)))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self._index.paths)


def _walk(folder: Path, suffixes: Collection[str], depth: int | None = None) -> Iterator[str]:
    """Yield the files with some suffixes; linked folders are searched too, each once, unless the depth is limited."""
    seen = set(
        map(str, Path(os.path.realpath(folder)).parents)
    )  # which a link to them would search as a whole
    for parent, folders, files in os.walk(folder, followlinks=depth is None):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        relative = Path(parent).relative_to(folder)
        hidden = {name for name in folders if name.startswith(".")}
        folders[:] = sorted(set(folders) - hidden) if depth is None or len(relative.parts) < depth else []
        for name in sorted(files):
            if PurePosixPath(name).suffix.lower() in suffixes and not is_hidden(Path(name)):
                yield (relative / name).as_posix()


def _exist(folder: Path, names: Sequence[str]) -> list[bool]:
    """Return for each name whether the folder has such an entry, by listing each folder once."""
    listed: dict[str, set[str]] = {}
    there = []
    for name in map(stored_in, names):
        parent, _, base = name.rpartition("/")
        if parent not in listed:
            try:
                listed[parent] = set(os.listdir(folder / (f"{parent}/" if name.startswith("/") else parent)))
            except (OSError, ValueError):  # there is no such folder, or its name cannot be one
                listed[parent] = set()
        there.append(base in listed[parent])
    return there


def resolve_images(
    finder: ImageFinder, stated: Sequence[str], stems: Sequence[str] | None = None
) -> tuple[list[str], dict[int, str]]:
    """Find the images of a dataset; see `ImageFinder`.

    An image that one name states exactly is not taken for another name, and one that two names would have to be
    searched for is taken for neither.

    Args:
        finder: Of the folder that the names are relative to.
        stated: The name of each image as the dataset states it.
        stems: Stem of the label file of each image, if there is one.

    Returns:
        For each image its path relative to the folder, as stated (with slashes) if it is not found; and by index why an
        image is left without a file although one may be it.
    """
    names = [to_posix(name) for name in stated]
    exact = _exist(finder.folder, names)
    claims = defaultdict[str, set[str]](set)
    for name, is_exact in zip(names, exact, strict=True):
        if is_exact:
            claims[os.path.normpath(name)].add(name)
    found: list[str | None] = []
    if not any(exact) and finder.is_empty and not any(map(split_frame, names)):
        return names, {}
    for i, name in enumerate(names):
        path = name if exact[i] else finder.find(stated[i], stems[i] if stems else None)
        found.append(path)
        if path is not None:
            claims[os.path.normpath(path)].add(name)
    problems: dict[int, str] = {}
    for i, path in enumerate(found):
        if path is None and len(several := finder.find_equal(stated[i])) > 1:
            one, other, *_ = several
            problems[i] = f"image {stated[i]} may be {one} or {other}; state its folder and suffix."
        elif path and not exact[i] and len(claims[os.path.normpath(path)]) > 1:
            what = f"and {path}, which may be it, is another's too; rename one."
            problems[i] = f"image {stated[i]} is missing, {what}"
            found[i] = None
    moved = [i for i, path in enumerate(found) if path not in (None, stated[i], names[i])]
    if stems:  # the suffix of an image that a label file belongs to does not matter
        bare = [(_without_suffix(str(found[i])), _without_suffix(names[i])) for i in moved]
        moved = [i for i, (one, other) in zip(moved, bare, strict=True) if one.lower() != other.lower()]
    if moved:
        first = moved[0]
        logger.info(
            "%d of %d image%s found in %s under another name than stated: %s is %s%s",
            *(len(moved), len(names), " is" if len(names) == 1 else "s are", finder.folder),
            *(stated[first], found[first], " (the first)" if len(moved) > 1 else ""),
        )
    return [path or name for path, name in zip(found, names, strict=True)], problems


def pair_labels(
    folder: Path, stated: Sequence[str], labels: Sequence[str]
) -> tuple[list[str], dict[int, str]]:
    """Find the image of each label file: the one that it names, unless that is another's and its own is there.

    Args:
        folder: The folder that the names are relative to.
        stated: The name of each image as its label file states it.
        labels: The path of each label file without its suffix, as if it were in the folder of the images.

    Returns:
        For each image its path relative to the folder, see `resolve_images`; and by index what is contradictory.
    """
    finder = ImageFinder(folder, depth=max([_MAX_DEPTH, *(label.count("/") for label in labels)]))
    known = {label.lower() for label in labels}
    chosen, problems = list[str](), dict[int, str]()
    for i, (name, label) in enumerate(zip(map(to_posix, stated), labels, strict=True)):
        named = _without_suffix(os.path.normpath(name)).lower()
        is_there = is_file(folder / name)
        own = None if is_there and named == label.lower() else finder.find_beside(label)
        if own and is_there and named in known:
            problems[i] = f"it names {name}, which is the image of another file; {own} is used."
        chosen.append(own if own and (not is_there or named in known) else name)
    paths, missing = resolve_images(finder, chosen, [PurePosixPath(label).name for label in labels])
    problems |= missing
    owner: dict[str, int] = {}
    for i in sorted(range(len(paths)), key=lambda i: _without_suffix(paths[i]) != labels[i]):
        first = owner.setdefault(os.path.normpath(paths[i]), i)
        if first != i and i not in missing and is_file(folder / paths[i]):
            problems[i] = f"it names {paths[i]}, which is the image of {labels[first]}; correct the name."
            paths[i] = labels[i] + PurePosixPath(paths[i]).suffix
    return paths, problems


def _without_suffix(path: str) -> str:
    return os.path.splitext(path)[0]


def guess_root(path: Path, paths: Sequence[str], named: str = "") -> ImageFinder:
    """Guess the folder that has the images of a file: the one it names, or one near it; its own folder if none has."""
    parent = path.parent
    split = path.stem.split("_")[-1]
    names = ["images", path.stem, split, f"images/{split}"]
    below = [parent, *(parent / n for n in names)]
    candidates = [*below, parent.parent, *(parent.parent / n for n in names)]
    if named:
        candidates.insert(0, parent / named)
    exact = next((candidate for candidate in candidates if has_images(candidate, paths)), None)
    if exact is not None or not paths:
        return ImageFinder(exact or parent)
    # No folder has them under the names as written. (The parent of its own folder may be a large one.)
    finders = map(ImageFinder, below[1:])
    return next((finder for finder in finders if finder.find(paths[0])), ImageFinder(parent))


def has_images(folder: Path, paths: Sequence[str]) -> bool:
    """Return whether a folder has one of the first images under the name as it is."""
    return any(is_file(folder / path) for path in paths[:3])

"""What the formats of many files (VOC, YOLO, LabelMe) share: file names, images put in place, original ids kept."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.data.formats.builder import read_bytes
from boxel.data.images import MAX_PIXELS, SUFFIXES, image_size
from boxel.data.issues import Issue
from boxel.masks.rle import Rle, decode
from boxel.utils.errors import BoxelError, one_line

IDS_FILE = "boxel-ids.json"
"""Holds what a folder of files has no place for: original ids, and sizes for where the images are elsewhere.

Readers take an image's annotation ids from it only if it has as many as the image has annotations; without the file
a set reads the same but for its ids.
"""


def file_stems(paths: Sequence[str]) -> list[str]:
    """A file name without suffix for each image: its own stem, or with the folders where two would be the same.

    No name leads out of the folder it is put in, whatever the paths hold.
    """
    stems, taken = [_stem(path) for path in paths], set[str]()
    counts: dict[str, int] = {}
    for stem in stems:
        counts[stem] = counts.get(stem, 0) + 1
    names = []
    for stem, path in zip(stems, paths, strict=True):
        base = stem if counts[stem] == 1 else _clean("_".join(_parts(path)))
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        names.append(name)
    return names


def _parts(path: str) -> list[str]:
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return [*parts[:-1], PurePosixPath(parts[-1]).stem] if parts else []


def _stem(path: str) -> str:
    return _clean((_parts(path) or [""])[-1])


def _clean(name: str) -> str:
    return re.sub(r'[\x00-\x1f<>:"|?*\ud800-\udfff]', "_", name)[:150].lstrip(".") or "image"


def suffix_of(path: str) -> str:
    """The image suffix of a path, ``.jpg`` where it has none that is known."""
    suffix = PurePosixPath(path).suffix
    return suffix if suffix.lower() in SUFFIXES else ".jpg"


def find_image(folder: Path, stem: str, *named: str) -> str:
    """The name of the first image in a folder that has one of these names, or the stem and an image suffix.

    Args:
        folder: where to look.
        stem: the stem the image should have.
        named: names to try first.

    Returns:
        The first name where none is there.
    """
    candidates = [*filter(None, named), f"{stem}.jpg", *(stem + suffix for suffix in sorted(SUFFIXES))]
    for name in candidates:
        with contextlib.suppress(OSError, ValueError):  # a name that is too long, or with a null byte
            if (folder / name).is_file():
                return name
    return candidates[0]


def place_images(data: Annotations, folder: Path, names: Sequence[str]) -> list[str]:
    """Put the images into a folder: hard links where that is possible, else symbolic links, else copies.

    A hard link takes no space and stays when the original is moved. Images that are already there are left alone.

    Args:
        data: the data set.
        folder: where to put the images; made if need be.
        names: for each image its file name in the folder.

    Returns:
        A sentence if some images are not where the data set says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i, name in enumerate(names) if not _place(data.image_path(i), folder / name)]
    if not missing:
        return []
    first = data.image_path(missing[0])
    return [
        f"{len(missing)} of {len(data)} images are missing, as {first}; put them into {folder}, or begin again "
        "with --images."
    ]


def _place(source: Path, target: Path) -> bool:
    try:
        if target.exists():
            return True
        # Only images: a path in an annotation file must not reach any other file.
        if source.suffix.lower() not in SUFFIXES or not source.is_file():
            return False
        for put in (os.link, os.symlink, shutil.copyfile):
            with contextlib.suppress(OSError):
                put(source.resolve(), target)
                return True
    except (OSError, ValueError):  # a name that is too long, or has a null byte
        pass
    return False


def size_of(data: Annotations, image: int) -> tuple[int, int]:
    """(width, height) of an image by the annotations, else by its file; zeros where neither says."""
    width, height = int(data.widths[image]), int(data.heights[image])
    if width and height:
        return width, height
    try:
        return image_size(data.image_path(image))
    except BoxelError:
        return 0, 0


def readable_mask(
    data: Annotations, instance: int, size: tuple[int, int], unreadable: list[str]
) -> NDArray[np.uint8] | None:
    """The (H, W) mask of an instance; None where there is none, it is not trusted or cannot be read.

    Args:
        data: the data set.
        instance: index of the instance.
        size: (width, height) of its image.
        unreadable: a sentence is appended for a mask that cannot be read; see `lost_masks`.
    """
    rle = readable_rle(data, instance, size, unreadable)
    return None if rle is None else decode(rle)


def readable_rle(
    data: Annotations, instance: int, size: tuple[int, int], unreadable: list[str]
) -> Rle | None:
    """As `readable_mask`, as a run-length code."""
    if data.segmentations[instance] is None or not data.trusted[instance]:
        return None
    width, height = size
    try:
        if not 0 < width * height <= MAX_PIXELS:
            raise BoxelError(
                f"{data.file}: annotation {data.ids[instance]} has a mask, but its image's size, {width} x {height}, "
                "cannot be that of a mask; `boxel check` says what is wrong with the image."
            )
        return data.rle(instance, (height, width))
    except BoxelError as error:
        unreadable.append(str(error))
        return None


class _ImageIds(Struct):
    id: int | str
    width: int = 0
    height: int = 0
    annotations: list[int | str] = []


class _CategoryIds(Struct):
    id: int
    name: str
    supercategory: str = ""


class _Ids(Struct):
    categories: list[_CategoryIds] = []
    images: dict[str, _ImageIds] = {}


def write_ids(data: Annotations, folder: Path, stems: Sequence[str], rows: Sequence[Sequence[int]]) -> None:
    """Write `IDS_FILE`.

    Args:
        data: the data set.
        folder: where to write.
        stems: for each image the stem of its files.
        rows: for each image the indices of its instances in the order written.
    """
    ids = _Ids(
        categories=[_CategoryIds(c.id, c.name, c.supercategory) for c in data.categories],
        images={
            stem: _ImageIds(
                data.image_ids[i],
                int(data.widths[i]),
                int(data.heights[i]),
                [data.ids[row] for row in rows[i]],
            )
            for i, stem in enumerate(stems)
        },
    )
    (folder / IDS_FILE).write_bytes(msgspec.json.encode(ids))


class Ids:
    """What `IDS_FILE` of a folder says; nothing where there is none."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / IDS_FILE
        self.issues: list[Issue] = []
        self._ids = _Ids()
        if self.file.is_file():
            try:
                self._ids = msgspec.json.decode(read_bytes(self.file), type=_Ids)
            except (msgspec.MsgspecError, BoxelError, ValueError, RecursionError) as error:
                message = f"{self.file}: cannot be read ({one_line(error)}); ids are made from file names."
                self.issues.append(Issue("bad-ids", message, str(self.file), repair="delete the file"))

    @property
    def names(self) -> list[str]:
        """Names of the categories."""
        return [category.name for category in self._ids.categories]

    def size(self, stem: str) -> tuple[int, int]:
        """(width, height) of an image, zeros if unknown."""
        known = self._ids.images.get(stem)
        valid = known is not None and 0 <= known.width < 2**31 and 0 <= known.height < 2**31
        return (known.width, known.height) if known is not None and valid else (0, 0)

    def restore(self, data: Annotations, stems: Sequence[str]) -> Annotations:
        """The data set with the original ids where the file knows them.

        Args:
            data: as read without the file.
            stems: for each image the stem of its files.
        """
        data = replace(data, issues=data.issues + self.issues)
        if not self._ids.images and not self._ids.categories:
            return data
        image_ids, ids = list(data.image_ids), list(data.ids)
        for i, stem in enumerate(stems):
            known = self._ids.images.get(stem)
            if known is None:
                continue
            image_ids[i] = known.id
            rows = data.instances_in(i)
            if len(rows) == len(known.annotations):
                for row, id in zip(rows, known.annotations, strict=True):
                    ids[row] = id
        return _restore_categories(replace(data, image_ids=image_ids, ids=ids), self._ids.categories)


def _restore_categories(data: Annotations, known: Sequence[_CategoryIds]) -> Annotations:
    """The known categories first, in their order, then others that instances use."""
    categories = [Category(c.id, c.name, c.supercategory) for c in known]
    used = {int(label) for label in np.unique(data.labels)}
    new_label = np.zeros(len(data.categories), dtype=np.int32)
    label_of = {category.name: label for label, category in reversed(list(enumerate(categories)))}
    for label, category in enumerate(data.categories):
        if category.name not in label_of and label in used:
            taken = {c.id for c in categories}
            id = category.id if category.id not in taken else max(taken) + 1
            label_of[category.name] = len(categories)
            categories.append(replace(category, id=id))
        new_label[label] = label_of.get(category.name, -1)
    return data.relabel(new_label, categories)


def lost_flags(data: Annotations, format: str) -> list[str]:
    """Sentences for the crowd flags and untrusted masks, which only COCO holds."""
    losses = []
    crowds = int(data.iscrowd.sum())
    if crowds:
        losses.append(f"{format} has no crowds: {crowds} are written as ordinary instances.")
    untrusted = sum(s is not None for s in data.segmentations[~data.trusted])
    if untrusted:
        losses.append(f"{format} cannot mark a mask as not trusted: {untrusted} are written as boxes only.")
    return losses


def lost_masks(data: Annotations, unreadable: Sequence[str], format: str) -> list[str]:
    """The sentence for masks that could not be read, and so not be written; `readable_mask` says which."""
    if not unreadable:
        return []
    count = f"{len(unreadable)} of {data.has_mask.sum()} masks"
    return [f"{count} cannot be read and are not written in {format}, the first: {unreadable[0]}"]


def lost_label_maps(data: Annotations, format: str) -> list[str]:
    """The sentence for the label maps, which only VOC and semantic sets hold."""
    maps = [label_map for label_map in data.label_maps if label_map is not None]
    if not maps:
        return []
    return [f"{format} holds no label maps: {len(maps)} are left out, as {data.root / maps[0]}."]


def iou_lost(ious: Sequence[float], masks: int, format: str, why: str) -> list[str]:
    """The sentence for masks that changed.

    Args:
        ious: mask IoU of what was written with the original, for the masks that could have changed.
        masks: how many masks were written in all.
        format: its name.
        why: what it cannot hold.
    """
    changed = [iou for iou in ious if iou < 1]
    if not changed:
        return []
    lost = 1 - np.array(changed)
    return [
        f"{format} {why}: {len(changed)} of {masks} masks changed and lost {lost.mean():.4f} mask IoU on average, "
        f"{lost.max():.4f} at worst ({lost.sum() / masks:.4f} over all masks)."
    ]


def row_ids(stem: str, count: int) -> list[ImageId]:
    """Ids of an image's annotations in a format that has none: ``stem:1``, ``stem:2``."""
    return [f"{stem}:{k}" for k in range(1, count + 1)]

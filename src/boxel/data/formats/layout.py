"""What the formats of many files share: file names, links to the images, original ids, and what is lost."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from boxel.data.annotations import Annotations, Category, ImageId
from boxel.data.formats.builder import Builder, read_bytes
from boxel.data.formats.outlines import join_rings, outlines, overlap
from boxel.data.images import MAX_PIXELS, SUFFIXES, image_size
from boxel.masks.rle import Rle, decode
from boxel.utils.errors import BoxelError, one_line

IDS_FILE = "boxel-ids.json"
"""Holds what a folder of files has no place for: original ids, and image sizes in case the images are elsewhere.

Readers take an image's annotation ids from it only if it has as many as the image has annotations; without the file a
dataset reads the same except for its ids.
"""

MAX_MASKS = 254
"""Maximum number of masks of an image that a uint8 map holds, beside 0 for background and 255 for void."""


def file_stems(paths: Sequence[str]) -> list[str]:
    """Return a distinct file name without suffix per image: its own stem, with its folders if two would be the same.

    No name leads out of the folder it is put in, whatever the paths hold.

    Examples:
        >>> file_stems(["a/1.jpg", "b/1.jpg", "../2.jpg"])
        ['a_1', 'b_1', '2']
    """
    parts = [_parts(path) for path in paths]
    stems = [_clean(names[-1] if names else "") for names in parts]
    counts = Counter(stems)
    taken: dict[str, None] = {}  # in order
    for stem, names in zip(stems, parts, strict=True):
        base = stem if counts[stem] == 1 else _clean("_".join(names))
        name, number = base, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken[name] = None
    return list(taken)


def _parts(path: str) -> list[str]:
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return [*parts[:-1], PurePosixPath(parts[-1]).stem] if parts else []


def _clean(name: str) -> str:
    return re.sub(r'[\x00-\x1f<>:"|?*\ud800-\udfff]', "_", name)[:150].lstrip(".") or "image"


def image_suffix(path: str) -> str:
    """Return the image suffix of a path; ``.jpg`` if it has none that is known."""
    suffix = PurePosixPath(path).suffix
    return suffix if suffix.lower() in SUFFIXES else ".jpg"


def image_names(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the stem and the file name of each image in one folder for all; see `file_stems`."""
    stems = file_stems(paths)
    return stems, [stem + image_suffix(path) for stem, path in zip(stems, paths, strict=True)]


def find_image(folder: Path, stem: str, *named: str) -> str:
    """Return the first name, of some or made from a stem, that an image in a folder has; the first if none has."""
    candidates = [*filter(None, named), f"{stem}.jpg", *(stem + suffix for suffix in sorted(SUFFIXES))]
    return next((name for name in candidates if is_file(folder / name)), candidates[0])


def is_file(path: Path) -> bool:
    """Return whether there is a file; not if its name, from a file of unknown origin, cannot be one."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # it is too long, or has a null byte
        return False


def place_images(data: Annotations, folder: Path, names: Sequence[str]) -> list[str]:
    """Put the images into a folder: as hard links if possible, else as symbolic links, else as copies.

    A hard link takes no space and stays when the original is moved. Images that exist already are left alone. If some
    images are missing, a sentence on them is returned.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i, name in enumerate(names) if not _place(data.image_path(i), folder / name)]
    if not missing:
        return []
    first = data.image_path(missing[0])
    return [
        f"{len(missing)} of {len(data)} images are missing, e.g. {first}; put them into {folder}, or start again with "
        "`images`."
    ]


def _place(source: Path, target: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or has a null byte
        if target.exists():
            return True
        # Only images: a path in an annotation file must not reach any other file.
        if source.suffix.lower() in SUFFIXES and source.is_file():
            for put in (os.link, os.symlink, shutil.copyfile):
                with contextlib.suppress(OSError):
                    put(source.resolve(), target)
                    return True
    return False


class Export:
    """A dataset while it is written as a folder: file names, what is written, and what is lost.

    The images are put at once into the folder ``images`` within it. Messages name the format.

    Attributes:
        stems: Stem of each image's files.
        names: File name of each image.
        rows: For each image the instances that are written, in order.
    """

    def __init__(self, data: Annotations, folder: Path, format: str, images: str = "") -> None:
        self.data, self.folder, self.format = data, folder, format
        self.stems, self.names = image_names(data.paths)
        self.rows: list[list[int]] = [[] for _ in data.paths]
        self._missing = place_images(data, folder / images, self.names)
        self._masks = 0
        self._ious: list[float] = []  # with the original, of each mask that may have changed
        self._unreadable: list[str] = []

    def masks(self, image: int) -> dict[int, NDArray[np.uint8]]:
        """Return the (H, W) masks of an image by their position among its instances, from 1; see `rle`."""
        rles = [self.rle(instance, image) for instance in self.data.instances_in(image).tolist()]
        return {k: decode(rle) for k, rle in enumerate(rles, start=1) if rle is not None}

    def rle(self, instance: int, image: int) -> Rle | None:
        """Return the code of a mask; None if there is none, it is not trusted, or it cannot be read."""
        data = self.data
        if data.segmentations[instance] is None or not data.trusted[instance]:
            return None
        width, height = data.image_size(image)
        try:
            if not 0 < width * height <= MAX_PIXELS:
                raise BoxelError(
                    f"{data.file}: annotation {data.ids[instance]} has a mask, but the size of its image, {width} x "
                    f"{height}, is not possible; `boxel check` reports what is wrong with the image."
                )
            rle = data.rle(instance, (height, width))
        except BoxelError as error:
            self._unreadable.append(str(error))
            return None
        self._masks += 1
        return rle

    def rings(self, instance: int, image: int, joined: bool = False) -> list[list[float]]:
        """Return a mask as rings of vertices ``[x0, y0, x1, y1, ...]`` in pixels, joined into one if wanted."""
        rle = self.rle(instance, image)
        if rle is None:
            return []
        segmentation: Any = self.data.segmentation(instance)
        exact = isinstance(segmentation, list)
        rings = [list(map(float, p)) for p in segmentation if len(p) >= 6] if exact else outlines(rle)
        if joined and len(rings) > 1:
            rings, exact = [join_rings(rings)], False
        if not exact:
            self._ious.append(overlap(rings, rle))
        return rings

    def paint(self, masks: Mapping[int, NDArray[np.uint8]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Paint masks as an (H, W) map of their numbers, smaller ones on top; those past `MAX_MASKS` are left out."""
        painted = np.zeros(shape, dtype=np.uint8)
        for k in sorted(masks, key=lambda k: -int(masks[k].sum())):
            if k <= MAX_MASKS:
                painted[masks[k] != 0] = k
        visible = np.bincount(painted.ravel(), minlength=256)
        shown = {k: int(visible[k]) if k <= MAX_MASKS else 0 for k in masks}
        self._ious += [shown[k] / max(int(mask.sum()), 1) for k, mask in masks.items()]
        return painted

    def write_ids(self) -> None:
        """Write `IDS_FILE`."""
        data = self.data
        images = {
            stem: _ImageIds(
                data.image_ids[i], int(data.widths[i]), int(data.heights[i]), [data.ids[row] for row in rows]
            )
            for i, (stem, rows) in enumerate(zip(self.stems, self.rows, strict=True))
        }
        (self.folder / IDS_FILE).write_bytes(msgspec.json.encode(_Ids(list(data.categories), images)))

    def losses(
        self, reason: str = "", needs: str = "", others: Sequence[str] = (), has_label_maps: bool = False
    ) -> list[str]:
        """Return a sentence per thing that the format cannot hold.

        Args:
            reason: What the format holds, which changes masks; empty for a format that has no instances.
            needs: What it needs of instances, beginning with its name; empty if it holds all.
            others: Sentences of the format itself.
            has_label_maps: The format holds label maps.
        """
        data, name, sentences = self.data, self.format, list[str]()
        lost = 1 - np.array([iou for iou in self._ious if iou < 1])
        if reason and len(lost):
            sentences.append(
                f"{name} {reason}: {len(lost)} of {self._masks} masks changed and lost {lost.mean():.4f} mask IoU on "
                f"average, {lost.max():.4f} at most ({lost.sum() / self._masks:.4f} over all masks)."
            )
        if self._unreadable:
            count = f"{len(self._unreadable)} of {data.has_mask.sum()} masks"
            first = self._unreadable[0]
            sentences.append(f"{count} cannot be read and are not written in {name}, the first: {first}")
        crowds = int(data.iscrowd.sum())
        if reason and crowds:
            sentences.append(f"{name} has no crowds: {crowds} are written as ordinary instances.")
        untrusted = int((data.has_segmentation & ~data.trusted).sum())
        if reason and untrusted:
            sentences.append(
                f"{name} cannot mark a mask as untrusted: {untrusted} are written as boxes only."
            )
        if not has_label_maps:
            sentences += lost_label_maps(data, name)
        left_out = len(data.labels) - sum(map(len, self.rows))
        if needs and left_out:
            sentences.append(f"{needs}: {left_out} of {len(data.labels)} instances are left out.")
        return [*sentences, *others, *self._missing]


def lost_label_maps(data: Annotations, format: str) -> list[str]:
    """Return a sentence on label maps, which only VOC and semantic datasets hold."""
    maps = [label_map for label_map in data.label_maps if label_map is not None]
    if not maps:
        return []
    return [f"{format} holds no label maps: {len(maps)} are left out, e.g. {data.root / maps[0]}."]


class _ImageIds(Struct):
    id: ImageId
    width: int = 0
    height: int = 0
    annotations: list[ImageId] = []


class _Ids(Struct):
    categories: list[Category] = []
    images: dict[str, _ImageIds] = {}


class Ids:
    """The content of a folder's `IDS_FILE`; empty if there is none or, which becomes an issue, it cannot be read."""

    def __init__(self, folder: Path, rows: Builder) -> None:
        self.file = folder / IDS_FILE
        self._ids = _Ids()
        if self.file.is_file():
            try:
                self._ids = msgspec.json.decode(read_bytes(self.file), type=_Ids)
            except (msgspec.MsgspecError, BoxelError, ValueError, RecursionError) as error:
                what = f"cannot be read ({one_line(error)}); ids are made from file names."
                rows.report("bad-ids", self.file, what, repair="delete the file")

    @property
    def names(self) -> list[str]:
        """Names of the categories."""
        return [category.name for category in self._ids.categories]

    def image_size(self, image: Path, stem: str) -> tuple[int, int]:
        """Return the (width, height) of an image as its file states, else as recorded; zeros if neither is known."""
        with contextlib.suppress(BoxelError):
            return image_size(image)
        known = self._ids.images.get(stem, _ImageIds(0))
        valid = 0 <= known.width < 2**31 and 0 <= known.height < 2**31
        return (known.width, known.height) if valid else (0, 0)

    def restore(self, data: Annotations, stems: Sequence[str]) -> Annotations:
        """Restore the ids that the file holds, by the stem of each image's files, in a dataset read without them."""
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


def _restore_categories(data: Annotations, known: Sequence[Category]) -> Annotations:
    """Put the known categories first, in their order, then others that instances use."""
    categories = list(known)
    used = set(data.labels.tolist())
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

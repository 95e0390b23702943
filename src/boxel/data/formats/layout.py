"""What the formats of many files share: file names, links to the images, original ids, and what is lost."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.extras import decode_extras
from boxel.data.formats.identity import IDS_FILE, write_ids
from boxel.data.formats.outlines import find_outline
from boxel.data.image_names import fold_name, split_path
from boxel.data.images import MAX_PIXELS, SUFFIXES, image_size, leads_out, read_image
from boxel.masks.rle import Rle, decode_in_box
from boxel.utils.errors import BoxelError
from boxel.utils.files import is_file
from boxel.utils.frames import frame_stem, split_frame
from boxel.utils.printable import count_noun
from boxel.utils.tars import read_member, split_member

MAX_MASKS = 254
"""Maximum number of masks of an image that a uint8 map holds, beside 0 for background and 255 for void."""


def file_stems(paths: Sequence[str]) -> list[str]:
    """Return a distinct file name without suffix per image: its own stem, with its folders if two would be the same.

    Names that differ in case alone are the same, as on some systems one file would stand for both. No name leads out of
    the folder it is put in, whatever the paths hold.

    Examples:
        >>> file_stems(["a/1.jpg", "b/1.jpg", "../2.jpg", "a_1.jpg", "3.jpg", "x/3.JPG", "X_3.jpg"])
        ['a_1_2', 'b_1', '2', 'a_1', '3', 'x_3_2', 'X_3']
    """
    parts = [split_path(path) for path in paths]
    parts = [[*p[:-1], frame_stem(p[-1]) or PurePosixPath(p[-1]).stem] if p else [""] for p in parts]
    stems = [clean_name(names[-1]) for names in parts]
    folded = list(map(fold_name, stems))
    counts = Counter(folded)
    order = sorted(
        range(len(stems)), key=lambda i: counts[folded[i]] > 1
    )  # a stem of one image stays with it
    chosen = [stems[i] if counts[folded[i]] == 1 else clean_name("_".join(parts[i])) for i in order]
    distinct = dict(zip(order, make_distinct(chosen, fold_name), strict=True))
    return [distinct[i] for i in range(len(stems))]


def make_distinct(names: Iterable[str], key: Callable[[str], str] = str) -> list[str]:
    """Add a number to each name that an earlier one has already, as compared by ``key``."""
    taken: dict[str, str] = {}  # in order
    for base in names:
        name, number = base, 1
        while key(name) in taken:
            number += 1
            name = f"{base}_{number}"
        taken[key(name)] = name
    return list(taken.values())


def name_classes(categories: Sequence[Category], clean: Callable[[str], str]) -> tuple[list[str], list[str]]:
    """Return the names of classes as a format can hold them, and a sentence if some must be numbered to differ.

    Args:
        categories: The classes.
        clean: Returns what the format can hold of a name.

    Examples:
        >>> name_classes([Category(1, "a"), Category(2, "a ")], str.strip)[0]
        ['a', 'a_2']
    """
    known = list(dict.fromkeys(category.name for category in categories))  # two of the same name stay one
    cleaned = [clean(name) or "unnamed" for name in known]
    plain = [" ".join(name.split()) for name in cleaned]
    distinct = make_distinct(plain)
    changed = [new for old, new in zip(plain, distinct, strict=True) if old != new]
    written = {
        name: own if old == new else new
        for name, own, old, new in zip(known, cleaned, plain, distinct, strict=True)
    }
    sentences = changed and [
        "names of classes differ in white space or control characters alone: "
        f"{count_noun(len(changed), 'class is', 'classes are')} numbered, e.g. {changed[0]!r}."
    ]
    return [written[category.name] for category in categories], sentences


def clean_name(name: str) -> str:
    """Return the name of a folder, or the stem of a file, without what some systems forbid; ``image`` if empty."""
    return re.sub(r'[/\\\x00-\x1f<>:"|?*\ud800-\udfff]', "_", name)[:150].lstrip(".") or "image"


def name_images(stems: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Return the file name of each image, with the suffix that it has; ``.jpg`` if that is not known."""
    suffixes = [PurePosixPath(path).suffix for path in paths]
    known = [suffix if suffix.lower() in SUFFIXES else ".jpg" for suffix in suffixes]
    return [stem + suffix for stem, suffix in zip(stems, known, strict=True)]


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write a text of lines; its folder is created if needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def place_images(data: Annotations, folder: Path, names: Sequence[str]) -> list[str]:
    """Put the images into a folder: as hard links if possible, else as copies.

    A hard link takes no space and stays when the original is moved. Images that exist already are left alone. A file
    without the suffix of an image, or what a link out of the folder of the images leads to, is copied, and only if it
    is an image: whoever made the link may not be who made the file. A sentence on the images that are missing, and one
    on links to no image, is returned.
    """
    for parent in {folder, *((folder / name).parent for name in names)}:
        parent.mkdir(parents=True, exist_ok=True)
    root = data.root.resolve()
    missing, unknown = [], []
    for i, name in enumerate(names):
        path, target = data.image_path(i), folder / name
        if split_frame(path) or not leads_out(path, root):
            missing += [] if _place(path, target) else [path]
        elif not _copy_image(path, target):
            unknown.append(path)
    sentences = {
        "are missing": (missing, f"put them into {folder}, or start again with `images`"),
        f"are links out of {root} to files that are not images": (unknown, "replace them, or leave them out"),
    }
    return [
        f"{len(paths)} of {len(data)} images {what}, e.g. {paths[0]}; {remedy}."
        for what, (paths, remedy) in sentences.items()
        if paths
    ]


def _place(source: Path, target: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or has a null byte
        if target.exists():
            return True
        # Only images: a path in an annotation file must not reach any other file.
        if split_frame(source) and is_file(source):
            Image.fromarray(read_image(source)).save(target, quality=95)
            return True
        if source.suffix.lower() not in SUFFIXES:
            return source.is_file() and _copy_image(source, target)
        if member := split_member(source):
            target.write_bytes(read_member(*member))
            return True
        if source.is_file():
            for put in (os.link, shutil.copyfile):
                with contextlib.suppress(OSError):
                    put(source.resolve(), target)
                    return True
    return False


def _copy_image(source: Path, target: Path) -> bool:
    """Copy what a link leads to; return whether the copy, which cannot change any more, is an image."""
    try:
        image_size(source)  # refuses at once what is large, or no file at all
        shutil.copyfile(source, target)
        read_image(target)
    except BoxelError:
        target.unlink(missing_ok=True)
        return False
    return True


Crop = tuple[NDArray[np.uint8], int, int]
"""A mask within its tight box, with the left column and the top row of that."""


def inside(image: NDArray[np.uint8], crop: Crop) -> NDArray[np.uint8]:
    """Return the box of a mask in an image."""
    mask, x, y = crop
    return image[y : y + mask.shape[0], x : x + mask.shape[1]]


class Export:
    """A dataset while it is written as a folder: file names, what is written, and what is lost.

    The images are put at once into the folder ``images`` within it. Messages name the format.

    Args:
        data: The dataset.
        folder: The folder to write.
        format: Name of the format.
        images: Folder of the images within it.
        stems: Stem of each image's files, with folders if wanted; made by `file_stems` if None.
        tolerance: Maximum distance in pixels of an outline from its mask; see `trace_outline`.
        untrusted: Masks that are not trusted are written too, e.g. as the format marks them.

    Attributes:
        stems: Stem of each image's files.
        names: File name of each image.
        rows: For each image the instances that are written, in order; see `add`.
        boxes: (N, 4) xyxy boxes that the instances will be read with.
        mask_areas: (N,) area of the masks that they will be read with; NaN if they are written as boxes.
        class_names: The name of each class as it is written.
    """

    def __init__(
        self,
        data: Annotations,
        folder: Path,
        format: str,
        images: str = "",
        stems: Sequence[str] | None = None,
        tolerance: float | None = None,
        untrusted: bool = False,
    ) -> None:
        self.data, self.folder, self.format = data, folder, format
        self.stems = file_stems(data.paths) if stems is None else list(stems)
        self.names = name_images(self.stems, data.paths)
        self.tolerance, self.untrusted = tolerance, untrusted
        self.rows: list[list[int]] = [[] for _ in data.paths]
        self.boxes = data.boxes.copy()
        self.mask_areas = np.full(len(data.boxes), np.nan)
        self._missing = place_images(data, folder / images, self.names)
        self.class_names = [category.name for category in data.categories]
        self._masks = 0
        self._ious: list[float] = []  # with the original, of each mask that may have changed
        self._unreadable: list[str] = []

    def masks(self, image: int) -> dict[int, Crop]:
        """Return the masks of an image by their position among its instances, from 1; see `rle`."""
        rles = [self.rle(instance, image) for instance in self.data.instances_in(image).tolist()]
        return {k: decode_in_box(rle) for k, rle in enumerate(rles, start=1) if rle is not None}

    def rle(self, instance: int, image: int) -> Rle | None:
        """Return the code of a mask; None if there is none, it is not to be written, or it cannot be read."""
        data = self.data
        if data.segmentations[instance] is None or not (data.trusted[instance] or self.untrusted):
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
        """Return a mask as rings of vertices ``[x0, y0, x1, y1, ...]`` in pixels, joined into one if wanted.

        Polygons stay as they are, unless a tolerance is given.
        """
        rle = self.rle(instance, image)
        if rle is None:
            return []
        outline = find_outline(self.data.segmentation(instance), rle, self.tolerance, joined)
        self._ious.append(outline.iou)
        return outline.rings

    def paint(
        self, masks: Mapping[int, Crop], shape: tuple[int, ...]
    ) -> tuple[NDArray[np.uint8], dict[int, NDArray[np.bool_]]]:
        """Paint masks as a map of their numbers, smaller ones on top; those past `MAX_MASKS` are left out.

        Returns:
            The (H, W) map, and what is visible of each mask, within its box.
        """
        painted = np.zeros(shape, dtype=np.uint8)
        areas = {k: cv2.countNonZero(mask) if mask.size else 0 for k, (mask, _, _) in masks.items()}
        for k in sorted(masks, key=lambda k: -areas[k]):
            if k <= MAX_MASKS:
                mask = masks[k][0]
                np.copyto(inside(painted, masks[k]), np.uint8(k), where=mask.view(bool))
        visible = {
            k: inside(painted, crop) == k if k <= MAX_MASKS else np.zeros(crop[0].shape, dtype=bool)
            for k, crop in masks.items()
        }
        self._ious += [np.count_nonzero(shown) / max(areas[k], 1) for k, shown in visible.items()]
        return painted, visible

    def add(
        self, image: int, instance: int, box: Sequence[float] | None = None, mask_area: float | None = None
    ) -> None:
        """Note that an instance is written.

        Args:
            image: Index of its image.
            instance: Its index.
            box: The xyxy box that it will be read with, if not its own.
            mask_area: The area of the mask that it will be read with; None if it is written as a box.
        """
        self.rows[image].append(instance)
        if box is not None:
            self.boxes[instance] = box
        if mask_area is not None:
            self.mask_areas[instance] = mask_area

    def describe_tight_boxes(self) -> list[str]:
        """Return a sentence on boxes that are written as the tight ones of their masks, if there are any."""
        moved = np.abs(self.boxes - self.data.boxes).max(axis=1, initial=0)[~np.isnan(self.mask_areas)]
        count = int((moved > 0.5).sum())
        if not count:
            return []
        return [
            f"{self.format} has no box beside a mask: {count} are written as the tight ones, which differ by up to "
            f"{moved.max():.0f} pixels."
        ]

    def write_ids(self) -> None:
        """Write `IDS_FILE`."""
        write_ids(self)

    def name_classes(self, clean: Callable[[str], str]) -> list[str]:
        """Return the name of each class as the format can hold it; see `name_classes`."""
        self.class_names, sentences = name_classes(self.data.categories, clean)
        self._missing += sentences
        return self.class_names

    def losses(
        self,
        reason: str = "",
        needs: str = "",
        others: Sequence[str] = (),
        has_label_maps: bool = False,
        held: Collection[str] | None = None,
    ) -> list[str]:
        """Return a sentence per thing that the format cannot hold.

        Args:
            reason: What the format holds, which changes masks; empty for a format that has no instances.
            needs: What it needs of instances, beginning with its name; empty if it holds all.
            others: Sentences of the format itself.
            has_label_maps: The format holds label maps.
            held: Names of the extras of objects that the format holds, those of images after ``image ``; all if None.
        """
        data, name, sentences = self.data, self.format, list[str]()
        if reason:
            sentences += _describe_changes(f"{name} {reason}", self._ious, self._masks)
        if self._unreadable:
            count = f"{len(self._unreadable)} of {data.has_mask.sum()} masks"
            first = self._unreadable[0]
            sentences.append(f"{count} cannot be read and are not written in {name}, the first: {first}")
        crowds = int(data.iscrowd.sum())
        if reason and crowds and not self.untrusted:
            sentences.append(f"{name} has no crowds: {crowds} are written as ordinary instances.")
        untrusted = np.flatnonzero(data.has_segmentation & ~data.trusted).tolist()
        if (reason or needs) and untrusted and not self.untrusted:
            is_written = set(itertools.chain.from_iterable(self.rows)).intersection(untrusted)
            outcome = "written as boxes only" if is_written else "left out"
            sentences.append(f"{name} cannot mark a mask as untrusted: {len(untrusted)} are {outcome}.")
        if not has_label_maps:
            sentences += lost_label_maps(data, name)
        left_out = len(data.labels) - sum(map(len, self.rows))
        if needs and left_out:
            sentences.append(f"{needs}: {left_out} of {len(data.labels)} instances are left out.")
        if lost := list_fields(data, held):
            is_kept = (self.folder / IDS_FILE).is_file()
            outcome = f"{IDS_FILE} keeps them, but other tools miss them" if is_kept else "they are left out"
            sentences.append(f"{name} has no place for {lost}: {outcome}.")
        return [*sentences, *others, *self._missing]


def _describe_changes(what: str, ious: Sequence[float], count: int) -> list[str]:
    """Return a sentence on masks that changed, of a count, by their mask IoU with the original."""
    lost = 1 - np.array([iou for iou in ious if iou < 1])
    if not len(lost):
        return []
    return [
        f"{what}: {len(lost)} of {count} masks changed and lost {lost.mean():.4f} mask IoU on average, "
        f"{lost.max():.4f} at most ({lost.sum() / count:.4f} over all masks)."
    ]


def to_polygons(data: Annotations, tolerance: float | None = None) -> tuple[Annotations, list[str]]:
    """Replace run-length codes by polygons, one per part with its holes in keyhole form; crowds stay codes.

    Args:
        data: The dataset.
        tolerance: Maximum distance in pixels of an outline from its mask, to which polygons are simplified too; if
            None, polygons stay, and each outline keeps a mask IoU of 0.99.

    Returns:
        The dataset, and sentences on what is lost.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> polygons, _ = to_polygons(sample_images())
        >>> isinstance(polygons.segmentation(0), list)
        True
    """
    segmentations, ious = data.segmentations.copy(), list[float]()
    for i in np.flatnonzero(data.has_segmentation & ~data.iscrowd).tolist():
        with contextlib.suppress(BoxelError):  # what is not a mask stays as it is
            segmentation = data.segmentation(i)
            if isinstance(segmentation, list) and tolerance is None:
                ious.append(1.0)
                continue
            outline = find_outline(segmentation, data.rle(i) or {}, tolerance)
            if outline.rings:
                segmentations[i] = msgspec.json.encode(outline.rings)
                ious.append(outline.iou)
    sentences = _describe_changes("COCO polygons hold outlines", ious, len(ious))
    untrusted = int((data.has_segmentation & ~data.trusted).sum())
    if untrusted:
        sentences.append(f"COCO: {untrusted} masks are marked by `trusted` false, which other tools ignore.")
    return replace(data, segmentations=segmentations), sentences


def list_fields(data: Annotations, held: Collection[str] | None = ()) -> str:
    """List the extras of objects, images and the dataset, each with its count; those that are held do not count.

    If ``held`` is None, a format holds all of objects and images.

    Examples:
        >>> from boxel.data.samples import sample_images
        >>> data = sample_images()
        >>> data.extras[:2] = b'{"track_id": 3}'
        >>> list_fields(data)
        'track_id (2 objects)'
    """
    parts = []
    for extras, word in ((data.extras, "object"), (data.image_extras, "image")):
        keys = Counter(key for text in extras if text is not None for key in decode_extras(text))
        parts += [
            f"{key} ({count_noun(count, word)})"
            for key, count in keys.items()
            if held is not None and (f"image {key}" if word == "image" else key) not in held
        ]
    if data.dataset_extras is not None:
        parts += [key for key in decode_extras(data.dataset_extras) if key not in ("yolo", "info")]
    return ", ".join(parts)


def lost_label_maps(data: Annotations, format: str) -> list[str]:
    """Return a sentence on label maps, which only VOC and semantic datasets hold."""
    maps = [label_map for label_map in data.label_maps if label_map is not None]
    if not maps:
        return []
    return [f"{format} holds no label maps: {len(maps)} are left out, e.g. {data.root / maps[0]}."]

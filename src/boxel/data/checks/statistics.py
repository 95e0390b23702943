"""`Statistics`: what a dataset holds, in numbers."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.checks.image_facts import ImageFacts
from boxel.data.checks.near_duplicates import group_near_duplicates
from boxel.data.images import leads_out
from boxel.utils.printable import count_noun, name_some
from boxel.utils.provenance import digest_file

SMALL, MEDIUM = 32**2, 96**2
"""Square pixels below which COCO calls an object small, and medium."""

BLACK = 8.0
"""Mean luminance in [0, 255] of an almost black image, at most."""

MAX_GRAY_SHARE = 0.2
"""Gray images are odd if they are a smaller share of a dataset than this."""

_MAX_CLASSES, _MAX_NAMED = 12, 3  # in a text


@dataclass(frozen=True)
class Statistics:
    """What a dataset holds; images are named by their path.

    Attributes:
        file: The annotation file or folder.
        format: Its format; empty if unknown.
        images: Number of images.
        images_without_objects: Number of images without an instance or a label map.
        readable_images: Number of images that could be decoded.
        image_sizes: Smallest, median and largest (width, height), by their number of pixels.
        instances: Number of instances, crowds included.
        crowds: Number of them that are crowds.
        classes: Number of instances by class, the most frequent first.
        masks: Number of instances by what their mask is: ``trusted``, ``made`` (of the trusted ones by a program),
            ``untrusted``, ``unusable`` (no mask in truth), and ``none``.
        label_maps: Number of label maps.
        box_sizes: Number of boxes that are ``small``, ``medium`` and ``large`` by COCO's areas.
        smallest_box: (width, height) of the box with the smallest area; None if there is not a box.
        median_box: Median width and median height; None if there is not a box.
        splits: Number of ``images`` and ``instances`` by split.
        identical_images: Groups of images with the same content.
        similar_images: Groups of images that look the same, identical ones included.
        leaks: Such groups with images of several splits.
        oddities: Images by what is odd about them: ``16 bits``, ``almost black``, ``gray among color``, and ``links out
            of the image folder``, which `convert` does not put into a folder.

    Examples:
        >>> from boxel.data import collect_statistics, example_scenes
        >>> collect_statistics(example_scenes()).box_sizes
        {'small': 4, 'medium': 1, 'large': 0}
    """

    file: str
    format: str
    images: int
    images_without_objects: int
    readable_images: int
    image_sizes: list[tuple[int, int]]
    instances: int
    crowds: int
    classes: dict[str, int]
    masks: dict[str, int]
    label_maps: int
    box_sizes: dict[str, int]
    smallest_box: tuple[float, float] | None
    median_box: tuple[float, float] | None
    splits: dict[str, dict[str, int]]
    identical_images: list[list[str]]
    similar_images: list[list[str]]
    leaks: list[list[str]]
    oddities: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as a dictionary, ready for `json.dumps`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return lines of text.

        Examples:
            >>> from boxel.data import collect_statistics, example_scenes
            >>> print(collect_statistics(example_scenes()).lines()[0])
            format: coco, images: 1 (all with objects), 96 x 64 pixels
        """
        return [line for line in _describe(self) if line]


def count_statistics(
    data: Annotations, bad_masks: NDArray[np.bool_], facts: Mapping[int, ImageFacts], format: str = ""
) -> Statistics:
    """Count what a dataset holds.

    Args:
        data: The dataset as it was read, with valid references.
        bad_masks: (N,) bool, segmentations that are not masks.
        facts: Facts by image, of those that can be read.
        format: Its format.
    """
    boxes = data.boxes[data.has_box & ~data.iscrowd]
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides.prod(axis=1)
    smallest = sides[areas.argmin()].round(2).tolist() if len(sides) else None
    median = np.median(sides, axis=0).round(2).tolist() if len(sides) else None
    counts = np.bincount(data.labels, minlength=len(data.categories))
    frequent = sorted(zip(counts.tolist(), data.categories, strict=True), key=lambda pair: -pair[0])
    classes: dict[str, int] = {}
    for count, category in frequent:
        classes[category.name] = classes.get(category.name, 0) + count
    instances = np.bincount(data.image_index, minlength=len(data))
    similar = _name_groups(data, facts, group_near_duplicates([fact.thumbnail for fact in facts.values()]))
    looks = [(fact.bytes, fact.thumbnail.tobytes()) for fact in facts.values()]
    paths = [data.image_path(image) for image in facts]
    identical = _name_groups(data, facts, group_identical(zip(looks, paths, strict=True)))
    groups = dict.fromkeys(map(tuple, [*similar, *identical]))
    return Statistics(
        file=data.file,
        format=format,
        images=len(data),
        images_without_objects=int(((instances == 0) & ~data.has_label_map).sum()),
        readable_images=len(facts),
        image_sizes=_image_sizes(data, facts),
        instances=len(data.labels),
        crowds=int(data.iscrowd.sum()),
        classes=classes,
        masks=_count_masks(data, bad_masks),
        label_maps=int(data.has_label_map.sum()),
        box_sizes={
            "small": int((areas < SMALL).sum()),
            "medium": int(((areas >= SMALL) & (areas < MEDIUM)).sum()),
            "large": int((areas >= MEDIUM).sum()),
        },
        smallest_box=smallest and (smallest[0], smallest[1]),
        median_box=median and (median[0], median[1]),
        splits=_count_splits(data, instances),
        identical_images=identical,
        similar_images=similar,
        leaks=find_leaks(data.paths, data.splits, [list(paths) for paths in groups]),
        oddities=_find_oddities(data, facts),
    )


def _image_sizes(data: Annotations, facts: Mapping[int, ImageFacts]) -> list[tuple[int, int]]:
    known = np.array(list(facts), dtype=np.int64)
    if not len(known):  # then as recorded
        known = np.flatnonzero((data.widths > 0) & (data.heights > 0))
    if not len(known):
        return []
    order = known[np.argsort(data.widths[known].astype(np.int64) * data.heights[known], kind="stable")]
    return [(int(data.widths[i]), int(data.heights[i])) for i in order[[0, len(order) // 2, -1]]]


def _count_masks(data: Annotations, bad: NDArray[np.bool_]) -> dict[str, int]:
    there = data.has_segmentation & ~bad
    return {
        "trusted": int((there & data.trusted).sum()),
        "made": int((there & data.has_generated_mask).sum()),
        "untrusted": int((there & ~data.trusted).sum()),
        "unusable": int(bad.sum()),
        "none": int((~data.has_segmentation).sum()),
    }


def _count_splits(data: Annotations, instances: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    splits: dict[str, dict[str, int]] = {}
    for name, count in zip(data.splits, instances.tolist(), strict=True):
        if name is not None:
            split = splits.setdefault(name, {"images": 0, "instances": 0})
            split["images"] += 1
            split["instances"] += count
    return splits


def group_identical(files: Iterable[tuple[Hashable, Path]]) -> list[list[int]]:
    """Group files of the same content, as positions; only those are read that agree in what is given beside each."""
    by_look: dict[Hashable, list[tuple[int, Path]]] = {}
    for position, (look, path) in enumerate(files):
        by_look.setdefault(look, []).append((position, path))
    groups = []
    for members in by_look.values():
        by_content: dict[object, list[int]] = {}
        for position, path in members if len(members) > 1 else []:
            by_content.setdefault(_digest(path), []).append(position)
        groups += [group for group in by_content.values() if len(group) > 1]
    return groups


def _digest(path: Path) -> object:
    try:
        return digest_file(path)
    except OSError:  # it was there before
        return path


def _name_groups(
    data: Annotations, facts: Mapping[int, ImageFacts], groups: Sequence[Sequence[int]]
) -> list[list[str]]:
    images = list(facts)
    named = [list(dict.fromkeys(data.paths[images[position]] for position in group)) for group in groups]
    return [paths for paths in named if len(paths) > 1]


def find_leaks(
    paths: Sequence[str], splits_of_paths: Sequence[str | None], groups: Sequence[list[str]]
) -> list[list[str]]:
    """Return the groups of paths with images of several splits, and each path that is in several itself."""
    splits: dict[str, set[str | None]] = {}
    for path, split in zip(paths, splits_of_paths, strict=True):
        splits.setdefault(path, set()).add(split)
    leaks = [group for group in groups if len(set().union(*(splits[path] for path in group)) - {None}) > 1]
    listed = {path for group in leaks for path in group}
    alone = [path for path, found in splits.items() if len(found - {None}) > 1 and path not in listed]
    return leaks + [[path] for path in alone]


def _find_oddities(data: Annotations, facts: Mapping[int, ImageFacts]) -> dict[str, list[str]]:
    colored = sum(fact.colored for fact in facts.values())
    few_gray = 0 < len(facts) - colored <= MAX_GRAY_SHARE * len(facts)
    odd = {
        "16 bits": [image for image, fact in facts.items() if fact.bits == 16],
        "almost black": [image for image, fact in facts.items() if fact.brightness <= BLACK],
        "gray among color": [image for image, fact in facts.items() if not fact.colored] if few_gray else [],
        "links out of the image folder": _find_links(data, facts),
    }
    return {what: [data.paths[image] for image in images] for what, images in odd.items() if images}


def _find_links(data: Annotations, images: Iterable[int]) -> list[int]:
    """Return the images that are links to other places, or in such folders."""
    root = data.root.resolve()
    paths = {image: data.image_path(image) for image in images}
    outside = {folder for folder in {path.parent for path in paths.values()} if leads_out(folder, root)}
    return [
        image
        for image, path in paths.items()
        if path.parent in outside or (os.path.islink(path) and leads_out(path, root))
    ]


def _describe(statistics: Statistics) -> list[str]:
    s = statistics
    alike = [] if s.similar_images == s.identical_images else s.similar_images
    return [
        _describe_images(s),
        f"instances: {s.instances:,}" + (f" ({s.crowds:,} of them crowds)" if s.crowds else ""),
        _describe_classes(s),
        _describe_masks(s),
        _describe_boxes(s),
        f"label maps: {s.label_maps:,}" if s.label_maps else "",
        "; ".join(
            f"{name}: {count_noun(split['images'], 'image')}, {count_noun(split['instances'], 'instance')}"
            for name, split in s.splits.items()
        ),
        _describe_groups("images in several splits, or like one of another split", s.leaks),
        _describe_groups("images of the same content", s.identical_images),
        _describe_groups("images that look the same", alike),
        *[f"{what}: {name_some(paths, _MAX_NAMED)}" for what, paths in s.oddities.items()],
    ]


def _describe_images(s: Statistics) -> str:
    if not s.images:
        return f"format: {s.format or 'unknown'}, images: 0"
    without, unreadable = s.images_without_objects, s.images - s.readable_images
    counts = f"{without:,} without objects" if without else "all with objects"
    counts += f", {unreadable:,} cannot be read" if unreadable else ""
    text = f"format: {s.format or 'unknown'}, images: {s.images:,} ({counts})"
    sizes = [f"{width} x {height}" for width, height in s.image_sizes]
    if len(set(sizes)) == 1:
        return f"{text}, {sizes[0]} pixels"
    return f"{text}, {sizes[0]} to {sizes[2]} pixels, median {sizes[1]}" if sizes else text


def _describe_classes(s: Statistics) -> str:
    classes = s.classes
    if not classes:
        return "classes: none"
    if s.label_maps and not s.instances:
        return f"classes: {len(classes):,} ({name_some(list(classes), _MAX_CLASSES)})"
    used = [f"{name}: {count:,}" for name, count in classes.items() if count]
    unused = [name for name, count in classes.items() if not count]
    names = f": {', '.join(unused)}" if len(unused) <= _MAX_NAMED else ""  # one may be another misspelled
    parts = [name_some(used, _MAX_CLASSES)]
    parts += [f"{len(unused):,} without instances{names}"] if unused else []
    return f"classes: {len(classes):,} ({'; '.join(filter(None, parts))})"


def _describe_masks(s: Statistics) -> str:
    made = f" ({s.masks['made']:,} of them made by a program)" if s.masks["made"] else ""
    parts = [f"{s.masks['trusted']:,} trusted{made}"]
    parts += [f"{s.masks['untrusted']:,} not trusted"] if s.masks["untrusted"] else []
    bad = s.masks["unusable"]
    parts += [f"{bad:,} that {'is not a mask' if bad == 1 else 'are not masks'}"] if bad else []
    return f"masks: {', '.join(parts)}, {s.masks['none']:,} boxes only" if s.instances else ""


def _describe_boxes(s: Statistics) -> str:
    total = sum(s.box_sizes.values())
    if not total or s.smallest_box is None or s.median_box is None:
        return ""
    shares = ", ".join(f"{count / total:.0%} {size}" for size, count in s.box_sizes.items())
    smallest, median = (f"{width:g} x {height:g}" for width, height in (s.smallest_box, s.median_box))
    return f"boxes: {shares}; smallest {smallest}, median {median} pixels"


def _describe_groups(what: str, groups: Sequence[Sequence[str]]) -> str:
    if not groups:
        return ""
    return f"{what}: {count_noun(len(groups), 'group')}, the first: {name_some(groups[0], _MAX_NAMED)}"

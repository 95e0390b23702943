"""What each format keeps: random datasets are written and read again, and compared field by field.

`docs/generate.py` makes the table of `docs/reference/formats.md` from it; a test checks it on other random datasets,
and every pair of formats.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from PIL import Image

import boxel
from boxel.data import Annotations, Category
from boxel.data.formats import write_as_given
from boxel.data.formats.extras import decode_extras
from boxel.data.formats.identity import IDS_FILE
from boxel.data.label_maps import make_label_map
from boxel.masks.boxes import paired_box_iou, tight_boxes
from boxel.masks.rle import encode

FORMATS = {
    "COCO": "coco",
    "YOLO": "yolo",
    "VOC": "voc",
    "SBD": "sbd",
    "LabelMe": "labelme",
    "CVAT": "cvat",
    "Label Studio": "label-studio",
    "FiftyOne": "fiftyone",
    "Parquet": "parquet",
    "YOLO-OBB": "yolo-obb",
    "Darknet": "darknet",
    "label maps": "semantic",
}
SUFFIXES = {"coco": ".json", "parquet": ".parquet"}
SEEDS = range(6)
SIDE = 48  # of the cell of an object

Pairs = Sequence[tuple[int, int]]
"""Indices of an instance before, and of the same one after."""

EXTRAS = b'{"attributes":{"ripe":true},"track_id":7}'
OF_IMAGE = b'{"coco_url":"https://x","neg_category_ids":[2],"not_exhaustive_category_ids":[4]}'  # as in LVIS
OF_CATEGORY = b'{"synset":"apple.n.01","synonyms":["apple"],"frequency":"f"}'


def random_dataset(folder: Path, seed: int) -> Annotations:
    """Write images and return a dataset with everything that `Annotations` holds; masks do not overlap."""
    rng = np.random.default_rng(seed)
    names = ["train/a.png", "val/b.png", "val/c.jpg"]
    objects = [
        (image, column, row)
        for image in range(3)
        for row in range(2)
        for column in range(3)
        if rng.random() < 0.7
    ] or [(0, 0, 0)]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 255, (2 * SIDE, 3 * SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    masks = [_draw(rng, column, row) for _, column, row in objects]
    count = len(objects)
    has_mask = rng.random(count) < 0.7
    trusted = ~has_mask | (rng.random(count) < 0.8)
    slack = rng.integers(0, 3, (count, 4)) * [-1, -1, 1, 1] * (rng.random((count, 1)) < 0.5)
    made = has_mask & (rng.random(count) < 0.5)
    return Annotations(
        root=folder,
        image_ids=[11, 5, 8],
        paths=names,
        widths=[3 * SIDE] * 3,
        heights=[2 * SIDE] * 3,
        categories=(Category(4, "apple", "fruit", OF_CATEGORY), Category(2, "wild pear")),
        ids=rng.permutation(np.arange(100, 100 + count)).tolist(),
        image_index=[image for image, _, _ in objects],
        labels=rng.integers(0, 2, count),
        boxes=(tight_boxes(masks) + slack).clip(0, [3 * SIDE, 2 * SIDE] * 2),
        iscrowd=rng.random(count) < 0.1,
        segmentations=_objects(
            [
                msgspec.json.encode(encode(mask)) if has else None
                for mask, has in zip(masks, has_mask, strict=True)
            ]
        ),
        quality=np.where(made, rng.random(count).round(4), np.nan),
        source=_objects(["boxcaseg" if by_program else None for by_program in made]),
        trusted=trusted,
        extras=_objects([EXTRAS if rng.random() < 0.3 else None for _ in objects]),
        image_extras=[OF_IMAGE, None, None],
        dataset_extras=b'{"info":{"year":2026}}',
        splits=["train", "val", "val"],
    )


def _objects(values: Sequence[Any]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _draw(rng: np.random.Generator, column: int, row: int) -> np.ndarray:
    """Draw an ellipse, a ring, two parts or a star in its cell."""
    mask = np.zeros((2 * SIDE, 3 * SIDE), dtype=np.uint8)
    x, y = SIDE * column + SIDE // 2, SIDE * row + SIDE // 2
    kind = rng.integers(4)
    if kind < 2:
        cv2.ellipse(mask, (x, y), (int(rng.integers(10, 18)), int(rng.integers(10, 18))), 0, 0, 360, 1, -1)
    if kind == 1:
        cv2.circle(mask, (x, y), int(rng.integers(3, 7)), 0, -1)
    elif kind == 2:
        cv2.rectangle(mask, (x - 16, y - 16), (x - 4, y), 1, -1)
        cv2.ellipse(mask, (x + 8, y + 4), (7, 11), 20, 0, 360, 1, -1)
    elif kind == 3:
        angles = np.sort(rng.random(7)) * 2 * np.pi
        radii = rng.uniform(9, 19, 7)
        points = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1).astype(np.int32)
        cv2.fillPoly(mask, [points], 1)
        cv2.circle(mask, (x, y), 5, 1, -1)
    return mask


def convert(data: Annotations, format: str, folder: Path, with_ids: bool = True) -> Annotations:
    """Write a dataset in a format and read it again, without `boxel-ids.json` if wanted."""
    target = folder / f"{format}{SUFFIXES.get(format, '')}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", boxel.data.ConversionWarning)
        write_as_given(data, target, format)
    if not with_ids and target.is_dir():
        (target / IDS_FILE).unlink(missing_ok=True)
    return boxel.read(target, images=data.root if target.is_file() else None, format=format)


def pair_instances(before: Annotations, after: Annotations) -> Pairs:
    """Pair the instances that are the same: in images of one name, the boxes that overlap most."""
    images = {Path(path).stem.rpartition("_")[2]: i for i, path in enumerate(after.paths)}
    pairs = []
    for i in range(len(before.ids)):
        image = images.get(Path(before.paths[before.image_index[i]]).stem)
        others = after.instances_in(image) if image is not None else []
        if len(others):
            iou = paired_box_iou(before.boxes[i][None], after.boxes[others])
            if iou.max() > 0.3:
                pairs.append((i, int(others[iou.argmax()])))
    return pairs


def _mask_ious(before: Annotations, after: Annotations, pairs: Pairs) -> list[float]:
    ious = []
    for i, j in pairs:
        if before.has_mask[i]:
            a, b = before.mask(i), after.mask(j)
            ious.append(0.0 if b is None else float((a & b).sum() / max((a | b).sum(), 1)))  # type: ignore[operator]
    return ious


def _same(attribute: str) -> Callable[[Annotations, Annotations, Pairs], bool]:
    def compare(before: Annotations, after: Annotations, pairs: Pairs) -> bool:
        old, new = getattr(before, attribute), getattr(after, attribute)
        return all(old[i] == new[j] or (old[i] != old[i] and new[j] != new[j]) for i, j in pairs)

    return compare


def _images(attribute: str) -> Callable[[Annotations, Annotations, Pairs], bool]:
    def compare(before: Annotations, after: Annotations, pairs: Pairs) -> bool:
        names = [Path(path).stem.rpartition("_")[2] for path in after.paths]
        old = dict(zip([Path(path).stem for path in before.paths], getattr(before, attribute), strict=True))
        return {name: old[name] for name in names} == dict(zip(names, getattr(after, attribute), strict=True))

    return compare


def _carried(before: Annotations, after: Annotations, pairs: Pairs) -> bool:
    """Return whether all fields of objects are the same, whatever the format adds."""
    return all(
        decode_extras(before.extras[i]).items() <= decode_extras(after.extras[j]).items() for i, j in pairs
    )


def _used(data: Annotations, attribute: str) -> set[Any]:
    return {getattr(data.categories[label], attribute) for label in data.labels}


FIELDS: dict[str, Callable[[Annotations, Annotations, Pairs], bool]] = {
    "images without objects": lambda a, b, _: len(a) == len(b),
    "objects with a mask": lambda a, b, pairs: {i for i, _ in pairs} >= set(np.flatnonzero(a.has_mask)),
    "objects with only a box": lambda a, b, pairs: all(
        not b.has_segmentation[dict(pairs)[i]] if i in dict(pairs) else False
        for i in np.flatnonzero(~a.has_segmentation)
    ),
    "class names": lambda a, b, pairs: (
        all(a.categories[a.labels[i]].name == b.categories[b.labels[j]].name for i, j in pairs)
        and _used(a, "name") <= {category.name for category in b.categories}
    ),
    "boxes (0.01 pixels)": lambda a, b, pairs: all(
        np.abs(a.boxes[i] - b.boxes[j]).max() < 0.01 for i, j in pairs
    ),
    "masks, exactly": lambda a, b, pairs: min(_mask_ious(a, b, pairs), default=1.0) == 1,
    "masks, IoU of 0.95 and more": lambda a, b, pairs: min(_mask_ious(a, b, pairs), default=1.0) >= 0.95,
    "image ids": _images("image_ids"),
    "annotation ids": _same("ids"),
    "category ids": lambda a, b, pairs: (
        all(a.categories[a.labels[i]].id == b.categories[b.labels[j]].id for i, j in pairs)
        and _used(a, "id") <= {category.id for category in b.categories}
    ),
    "supercategories and fields of categories": lambda a, b, _: all(
        category in b.categories for category in a.categories
    ),
    "crowds": _same("iscrowd"),
    "untrusted masks": lambda a, b, pairs: all(
        b.segmentations[j] is not None and not b.trusted[j] for i, j in pairs if not a.trusted[i]
    ),
    "quality and source": lambda a, b, pairs: all(
        (a.source[i] == b.source[j] and abs(a.quality[i] - b.quality[j]) < 1e-5)
        for i, j in pairs
        if a.source[i]
    ),
    "splits": _images("splits"),
    "other fields of objects": _carried,
    "other fields of images": _images("image_extras"),
    "info and licenses": lambda a, b, _: a.dataset_extras == b.dataset_extras,
}
"""What is compared: name, and whether it survived."""

OF_THE_WHOLE = {
    *("images without objects", "class names", "image ids", "category ids", "splits", "info and licenses"),
    *("supercategories and fields of categories", "other fields of images"),
}
"""Fields that a format can keep if it has no objects."""


def survivors(before: Annotations, after: Annotations) -> set[str]:
    """Return the fields that are the same in two datasets."""
    pairs = pair_instances(before, after)
    fields = FIELDS.keys() if pairs else OF_THE_WHOLE
    return {name for name in fields if FIELDS[name](before, after, pairs)}


def kept_by(format: str, with_ids: bool = True, seeds: Sequence[int] = SEEDS) -> set[str]:
    """Return the fields that a format keeps in every one of some random datasets."""
    kept = set(FIELDS)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "in").mkdir()
            data = random_dataset(Path(scratch) / "in", seed)
            kept &= survivors(data, convert(data, format, Path(scratch), with_ids))
    return kept


def keeps_label_maps(format: str) -> bool:
    """Return whether a format keeps each pixel of label maps, with the names of all their classes."""
    with tempfile.TemporaryDirectory() as scratch:
        labels, images = (Path(scratch) / "in" / name for name in ("labels", "images"))
        for folder in (labels, images):
            folder.mkdir(parents=True)
        values = np.random.default_rng(0).choice([0, 1, 2, 255], (SIDE, SIDE)).astype(np.uint8)
        Image.fromarray(values).save(labels / "a.png")
        Image.new("RGB", (SIDE, SIDE)).save(images / "a.png")
        (labels.parent / "classes.txt").write_text("background\naeroplane\nbicycle\n")  # in VOC's order
        before = boxel.read(labels.parent)  # whose background is a class like others
        after = convert(before, format, Path(scratch))
        if not any(after.label_maps):
            return False
        if [c.name for c in before.categories] != [c.name for c in after.categories]:
            return False
        return np.array_equal(make_label_map(before, 0), make_label_map(after, 0))


def markdown() -> str:
    """Return the table as a page."""
    rows = [f"|  | {' | '.join(FORMATS)} |", f"|---|{'---|' * len(FORMATS)}"]
    alone = {name: kept_by(format, with_ids=False) for name, format in FORMATS.items()}
    whole = {name: kept_by(format) for name, format in FORMATS.items()}
    for field in FIELDS:
        cells = ["yes" if field in alone[name] else "ids" if field in whole[name] else "" for name in FORMATS]
        rows.append(f"| {field} | {' | '.join(cells)} |")
    cells = ["yes" if keeps_label_maps(format) else "" for format in FORMATS.values()]
    rows.append(f"| label maps | {' | '.join(cells)} |")
    return "\n".join([*INTRODUCTION, "", *rows, ""])


INTRODUCTION = (
    "# What each format keeps",
    "",
    "Random datasets are written in each format and read again. **yes**: the field is the same afterward in every",
    "object. **ids**: it is the same as long as `boxel-ids.json`, which boxel writes beside the files of other",
    "formats, stays with them. Empty: the format has no place for it, or changes it; `boxel convert` reports it. The",
    "masks of these datasets do not overlap: VOC and SBD hold one object per pixel. LVIS is COCO with more fields of",
    "images and categories, which count as other fields. In label maps objects become pixels of their classes.",
    "",
    "What two formats both keep survives a conversion from one to the other.",
)

"""FiftyOne: folders that it exports as ``FiftyOneDataset`` or ``FiftyOneImageDetectionDataset``.

The formats: https://docs.voxel51.com/user_guide/export_datasets.html. Numbers are shares of the sides of the image. The
mask of a detection fills its box; it is an array of NumPy, compressed, of which nothing is ever unpickled. Closed
polylines become polygons.
"""

from __future__ import annotations

import base64
import contextlib
import io
import math
import os
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import cv2
import msgspec
import numpy as np
from msgspec import Raw
from numpy.typing import NDArray
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats.builder import MALFORMED, Builder, parse_json, read_head, read_utf8
from boxel.data.formats.extras import encode_extras, get_dict, get_list, get_text
from boxel.data.formats.fiftyone_writer import FIELD, KNOWN, METADATA, SAMPLES, hold_image, hold_object
from boxel.data.formats.fiftyone_writer import write as write
from boxel.data.formats.geometry import encode_visible, to_polygons
from boxel.data.formats.identity import Held, Ids
from boxel.data.formats.layout import file_stems
from boxel.data.formats.names import ImageFinder, folder_beside, stay_inside
from boxel.data.images import MAX_PIXELS
from boxel.data.splits import SPLITS, standard_split
from boxel.utils.errors import BoxelError, one_line
from boxel.utils.files import is_file

if TYPE_CHECKING:
    import fiftyone

LABELS = "labels.json"

_KINDS = ("Detections", "Polylines", "Detection", "Polyline")  # of the labels that are read
_HEADER = 4096  # bytes that precede the pixels of an array, at most


class _Samples(msgspec.Struct):
    samples: list[Raw]


class _Labels(msgspec.Struct):
    labels: dict[str, Raw]
    classes: list[str] | None = None


def recognize(path: Path) -> bool:
    """Return whether this is a folder that FiftyOne has exported, or its file of samples or labels."""
    folder, file = _locate(path)
    if file == LABELS:
        return re.match(rb'\s*\{\s*"(classes|labels)"\s*:', read_head(folder / file)) is not None
    return bool(file)


def _locate(path: Path) -> tuple[Path, str]:
    """Return the folder, and the name of the file of samples or of labels; empty if there is none."""
    folder = path if path.is_dir() else path.parent
    names = [path.name] if path.is_file() else [SAMPLES, LABELS]
    for name in names:
        if name == SAMPLES and (folder / SAMPLES).is_file() and (folder / METADATA).is_file():
            return folder, name
        if name == LABELS and (folder / LABELS).is_file() and (folder / "data").is_dir():
            return folder, name
    return folder, ""


def read(path: Path, images: Path | None = None) -> Annotations:
    """Read an exported folder.

    Of the fields of samples that have detections or polylines, ``ground_truth`` is read, or else the first; others are
    reported. A tag that names a split is the split of a sample. Images are in ``data/`` unless their folder is given.
    """
    folder, file = _locate(path)
    if not file:
        raise BoxelError(
            f"{path}: this is not a dataset of FiftyOne; name a folder with {SAMPLES} and {METADATA}."
        )
    root = images or folder_beside(folder / file, "data")
    rows = Builder()
    ids = Ids(folder, rows)
    reader = _Reader(folder / file, root, rows)
    classes = reader.read_samples() if file == SAMPLES else reader.read_labels()
    stems = file_stems(rows.paths)
    rows.find_images(reader.finder, folder / file)
    rows.image_ids = [*stems]
    rows.ids = [
        id if id != "" else f"{stems[i]}:{k}"
        for i, k, id in zip(rows.image_index, reader.numbers, rows.ids, strict=True)
    ]
    names = list(dict.fromkeys([*classes, *sorted(reader.labels)]))
    rows.sort_labels(reader.labels, names)
    categories = [Category(k, name) for k, name in enumerate(names, start=1)]
    data = rows.build(root, categories, folder / file)
    return ids.restore_by_id(data, stems, Held(hold_object, hold_image, ["iscrowd", "quality", "source"]))


def from_fiftyone(dataset: fiftyone.Dataset) -> Annotations:
    """Read a dataset of FiftyOne, or a view of one, as :func:`read` reads what it exports.

    Args:
        dataset: The dataset; its images stay where they are.

    Returns:
        The dataset, with its images relative to the folder that holds them all.

    Raises:
        BoxelError: It has no images.

    Examples:
        >>> from boxel.data import example_scenes, to_fiftyone
        >>> len(from_fiftyone(to_fiftyone(example_scenes(3))))  # doctest: +SKIP
        3
    """
    from fiftyone.types import FiftyOneDataset

    paths = dataset.values("filepath")
    if not paths:
        raise BoxelError(f"{dataset.name}: this dataset of FiftyOne has no images.")
    root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
    with tempfile.TemporaryDirectory() as folder:
        dataset.export(export_dir=folder, dataset_type=FiftyOneDataset, export_media=False, rel_dir=str(root))
        data = read(Path(folder), root)
    name = dataset.name
    issues = [replace(one, file=name, message=one.message.replace(data.file, name)) for one in data.issues]
    return replace(data, file=name, issues=issues)


class _Reader:
    """Reads samples into rows."""

    def __init__(self, file: Path, root: Path, rows: Builder) -> None:
        self.file, self.rows = file, rows
        self.finder = ImageFinder(root)
        self.labels: dict[str, int] = {}
        self.numbers: list[int] = []  # of each row within its image

    def read_samples(self) -> list[str]:
        """Read ``samples.json``; return the classes that the dataset lists."""
        raws = self._decode(_Samples).samples
        field = self._choose_field(raws)
        for position, raw in enumerate(raws):
            try:
                sample = msgspec.json.decode(raw, type=dict[str, Any])
                self._read_sample(sample, field)
            except MALFORMED as error:
                what = f"sample {position} of the list cannot be read ({one_line(error)}); it is left out."
                self.rows.report("bad-image", self.file, what, position=position)
        return _read_classes(self.file.with_name(METADATA), field)

    def _choose_field(self, raws: Sequence[Raw]) -> str:
        """Return the name of the field to read; report the others, and samples that are not images."""
        counts, unread, others = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
        for raw in raws:
            with contextlib.suppress(*MALFORMED):
                sample = msgspec.json.decode(raw, type=dict[str, Any])
                counts.update({key: len(_objects(value)) for key, value in sample.items() if _kind(value)})
                unread.update((key, kind) for key, value in sample.items() if (kind := _other_kind(value)))
                others[_media_type(sample)] += 1
        field = FIELD if FIELD in counts else next(iter(counts), FIELD)
        for other in sorted(counts.keys() - {field}):
            what = f"field {other!r} (objects: {counts[other]}) is not read, but {field!r} is."
            self.rows.report("field-not-read", self.file, what, repair="")
        for (key, kind), count in sorted(unread.items()):
            what = f"field {key!r} ({kind}, samples: {count}) is not read; it has neither boxes nor masks of objects."
            self.rows.report("field-not-read", self.file, what, repair="")
        del others["image"]
        for kind, count in sorted(others.items()):
            what = (
                f"{count} of {len(raws)} samples are of the media type {kind}, not images; they are left out."
            )
            self.rows.report("not-an-image", self.file, what, count=count)
        return field

    def read_labels(self) -> list[str]:
        """Read ``labels.json``; return the classes that it lists."""
        content = self._decode(_Labels)
        classes = content.classes or []
        for stem, raw in content.labels.items():
            image = self._add_image(stay_inside(stem), {}, None, None)
            try:
                objects = msgspec.json.decode(raw, type=list[dict[str, Any]] | None) or []
            except MALFORMED as error:
                what = f"the objects of {stem} cannot be read ({one_line(error)}); they are left out."
                self.rows.report("bad-annotation", self.file, what)
                continue
            for number, item in enumerate(objects, start=1):
                if isinstance(item.get("label"), int) and 0 <= item["label"] < len(classes):
                    item["label"] = classes[item["label"]]
                self._read_object(item, image, number)
        return classes

    def _decode(self, type: Any) -> Any:
        decode = msgspec.json.Decoder(type).decode
        return parse_json(read_utf8(self.file), self.file, decode, "a file of FiftyOne")

    def _read_sample(self, sample: dict[str, Any], field: str) -> None:
        if _media_type(sample) != "image":
            return
        name = stay_inside(get_text(sample, "filepath"))
        if not name:
            raise ValueError("it has no filepath")
        tags = [tag for tag in get_list(sample, "tags") if isinstance(tag, str)]
        named = [tag for tag in tags if standard_split(tag) in SPLITS]
        split = named[0] if len(named) == 1 else None
        own = [key for key in sample if key[0] != "_" and key not in ("filepath", "tags")]
        attributes = {key: value for key in own if (value := _plain(sample[key])) is not None}
        extras: dict[str, Any] = {"attributes": attributes}
        extras |= {"tags": [tag for tag in tags if tag != split], "fiftyone": _id(sample)}
        extras = {key: value for key, value in extras.items() if value}
        name = name.removeprefix("data/")
        image = self._add_image(name, get_dict(sample, "metadata"), split, encode_extras(extras))
        for number, item in enumerate(_objects(sample.get(field)), start=1):
            self._read_object(item, image, number)

    def _add_image(self, name: str, metadata: dict[str, Any], split: str | None, extras: bytes | None) -> int:
        width, height = (metadata.get(side, 0) for side in ("width", "height"))
        if not all(isinstance(side, int) and 0 < side < 2**31 for side in (width, height)):
            width, height = self.finder.read_size(name)
        return self.rows.add_image("", name, width, height, split=split, extras=extras)

    def _read_object(self, item: Mapping[str, Any], image: int, number: int) -> None:
        id = f"{PurePosixPath(self.rows.paths[image]).stem}:{number}"
        size = self.rows.widths[image], self.rows.heights[image]
        try:
            label = item.get("label")
            if not isinstance(label, str):
                raise ValueError("it has no label")
            if not all(size):
                raise ValueError("the size of its image is unknown")
            box, segmentation = _polyline(item, size) if "points" in item else (_box(item, size), None)
            if not all(map(math.isfinite, box)):
                raise ValueError("its numbers are not finite")
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            what = f"object {id} cannot be read ({one_line(error)}); it is left out."
            self.rows.report("bad-annotation", self.file, what, None, id)
            return
        if item.get("mask") is not None or item.get("mask_path"):
            try:
                segmentation = _mask(item, box, size, self.file.parent)
            except Exception as error:  # NumPy, Pillow and zlib have errors of many kinds
                what = f"the mask of object {id} cannot be read ({one_line(error)}); the box is kept."
                self.rows.report("bad-mask", self.file, what, None, id, repair="mask left out, box kept")
        fields, extras = _split_attributes(item)
        text = None if segmentation is None else msgspec.json.encode(segmentation)
        own = self.labels.setdefault(label, len(self.labels))
        self.numbers.append(number)
        self.rows.add(fields.pop("id", ""), image, own, box, text, **fields, extras=encode_extras(extras))


def _kind(value: Any) -> str:
    kind = get_text(value, "_cls") if isinstance(value, dict) else ""
    return kind if kind in _KINDS else ""


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a field of a sample."""
    kind = _kind(value)
    items = get_list(value, kind.lower()) if kind.endswith("s") else [value] if kind else []
    return [item for item in items if isinstance(item, dict)]


def _media_type(sample: dict[str, Any]) -> str:
    return get_text(sample, "_media_type") or "image"


def _other_kind(value: Any) -> str:
    """Return the kind of a field of a sample that is not read; empty if it is read."""
    kind = get_text(value, "_cls") if isinstance(value, dict) else ""
    return "" if kind in (*_KINDS, "Classification", "ImageMetadata") else kind


def _plain(value: Any) -> Any:
    """Return the value of a field, the label of a class, and None for labels and dates."""
    if isinstance(value, dict) and value.get("_cls") == "Classification":
        return value.get("label")
    return None if isinstance(value, dict) and value.keys() & {"_cls", "$date", "$oid"} else value


def _id(item: Mapping[str, Any]) -> dict[str, str]:
    id = get_text(get_dict(item, "_id"), "$oid")
    return {"id": id} if id else {}


def _split_attributes(item: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns that the attributes of an object stand for, and the other attributes as extras."""
    old = get_dict(item, "attributes")
    stated = {key: v.get("value") if isinstance(v, dict) else v for key, v in old.items()}
    stated |= {key: v for key, v in item.items() if key[:1] != "_" and key not in {*KNOWN, "attributes"}}
    fields: dict[str, Any] = {}
    id = stated.pop("annotation_id", None)
    if isinstance(id, int | str) and not isinstance(id, bool):
        fields["id"] = id
    fields["iscrowd"] = stated.pop("iscrowd", None) in (1, True)
    confidence = item.get("confidence")
    quality = stated.pop("quality", confidence)
    if isinstance(quality, int | float) and 0 <= quality <= 1:
        fields["quality"] = float(quality)
    source = stated.pop("source", None)
    if isinstance(source, str):
        fields["source"] = source
    own = _id(item) | ({} if item.get("index") is None else {"index": item["index"]})  # of its track
    extras = {"attributes": stated, "fiftyone": own, "tags": get_list(item, "tags")}
    return fields, {key: value for key, value in extras.items() if value}


_Shape = tuple[list[float], Any]


def _box(item: Mapping[str, Any], size: tuple[int, int]) -> list[float]:
    left, top, width, height = (float(v) for v in item["bounding_box"])
    corners = (left * size[0], top * size[1], (left + width) * size[0], (top + height) * size[1])
    return [round(v, 9) for v in corners]


def _polyline(item: Mapping[str, Any], size: tuple[int, int]) -> _Shape:
    if not (item.get("closed") or item.get("filled")):
        raise ValueError("an open line encloses nothing")
    rings = [[[round(x * size[0], 9), round(y * size[1], 9)] for x, y in ring] for ring in item["points"]]
    return to_polygons([ring for ring in rings if len(ring) >= 3])


def _mask(item: Mapping[str, Any], box: list[float], size: tuple[int, int], folder: Path) -> dict[str, Any]:
    """Return the run-length code of a mask that fills a box."""
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError("its image is too large")
    stored = item.get("mask")
    if stored is not None:
        binary = get_dict(stored, "$binary").get("base64") if isinstance(stored, dict) else stored
        mask = unpack_mask(base64.b64decode(binary or ""), size[0] * size[1])
    else:
        mask = _read_png(folder / stay_inside(get_text(item, "mask_path")), size[0] * size[1])
    x0, y0 = round(box[0]), round(box[1])
    width, height = round(box[2] - box[0]), round(box[3] - box[1])
    if abs(mask.shape[1] - width) > 1 or abs(mask.shape[0] - height) > 1:
        if not 0 < width * height <= size[0] * size[1]:
            raise ValueError("its box is empty, or larger than the image")
        mask = cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) != 0
    return encode_visible(mask, x0, y0, size)


def unpack_mask(content: bytes, max_pixels: int) -> NDArray[np.bool_]:
    """Return the (h, w) mask of a compressed NumPy file that is not larger than an image.

    Raises:
        ValueError: The file is damaged, expands too far, or holds anything but numbers.
    """
    limit = 2 * max_pixels + _HEADER
    expander = zlib.decompressobj()
    try:
        expanded = expander.decompress(content, limit)
    except zlib.error as error:
        raise ValueError(one_line(error)) from error
    if not expander.eof:
        raise ValueError("it is larger than its image, or truncated")
    file = io.BytesIO(expanded)
    version = np.lib.format.read_magic(file)
    npy = np.lib.format
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file)
    if dtype.kind not in "buif" or len(shape) != 2:
        raise ValueError(f"an array of {len(shape)} dimensions and type {dtype}")
    if math.prod(shape) * dtype.itemsize != len(expanded) - file.tell():
        raise ValueError("its size is not the one that it states")
    values = np.frombuffer(expanded, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C") != 0


def _read_png(file: Path, max_pixels: int) -> NDArray[np.bool_]:
    if not is_file(file):
        raise ValueError(f"there is no {file}")
    with Image.open(file, formats=["PNG"]) as image:
        if image.width * image.height > max_pixels:
            raise ValueError("it is larger than its image")
        return np.array(image.convert("L")) != 0


def _read_classes(file: Path, field: str) -> list[str]:
    """Return the classes that the description of a dataset lists."""
    with contextlib.suppress(BoxelError, *MALFORMED):
        described = msgspec.json.decode(read_utf8(file), type=dict[str, Any])
        listed = get_list(get_dict(described, "classes"), field) or get_list(described, "default_classes")
        return [name for name in listed if isinstance(name, str)]
    return []

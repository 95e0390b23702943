"""Write FiftyOne datasets, as folders and as objects of its package."""

from __future__ import annotations

import base64
import io
import re
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import ANY, decode_extras, get_dict, get_list
from boxel.data.formats.layout import Export
from boxel.masks.rle import decode_in_box
from boxel.utils.errors import import_package

if TYPE_CHECKING:
    import fiftyone

SAMPLES, METADATA = "samples.json", "metadata.json"
FIELD = "ground_truth"
"""The field of a sample that has its objects."""

KNOWN = frozenset(
    {
        *("label", "bounding_box", "confidence", "index", "tags"),
        *("mask", "mask_path", "points", "closed", "filled"),
    }
)
"""Fields of objects that are not attributes."""

_VERSION = "1.0.0"  # of FiftyOne, whose later versions migrate what is written
_NUDGE = 1e-4  # pixels by which boxes of masks are moved, as FiftyOne rounds the place of a mask down
_NAME = re.compile(r"[A-Za-z]\w*\Z", re.ASCII)


def write(data: Annotations, path: Path) -> list[str]:
    """Write a folder that FiftyOne imports as ``fiftyone.types.FiftyOneDataset``, with the images in ``data/``.

    Each object is a detection in the field ``ground_truth``, with its mask, and with crowd, quality and source, which
    FiftyOne takes for attributes, as it does ``attributes`` of the extras. The split is a tag.
    """
    export = Export(data, path, "FiftyOne", "data")
    with open(path / SAMPLES, "wb") as file:
        file.write(b'{"samples": [\n')
        for image in range(len(data)):
            file.write((b",\n" if image else b"") + msgspec.json.encode(_sample(export, image)))
        file.write(b"\n]}\n")
    (path / METADATA).write_bytes(msgspec.json.format(msgspec.json.encode(_metadata(data)), indent=1))
    export.write_ids()
    needs = "FiftyOne needs finite numbers and the sizes of the images"
    held = ["attributes", "fiftyone", "tags", "image tags", "image fiftyone"]
    return export.losses(needs=needs, others=export.describe_tight_boxes(), held=held)


def to_fiftyone(data: Annotations, name: str | None = None) -> fiftyone.Dataset:
    """Return a dataset of FiftyOne, with each object as a detection in the field ``ground_truth``.

    Args:
        data: The dataset; its images stay where they are.
        name: Name of the new dataset in FiftyOne's database; FiftyOne chooses one if None.

    Raises:
        BoxelError: fiftyone is not installed.

    Examples:
        >>> from boxel.data import example_scenes
        >>> to_fiftyone(example_scenes()).count("ground_truth.detections")  # doctest: +SKIP
        5
    """
    fiftyone = import_package("fiftyone", "to_fiftyone()")
    samples = []
    for image in range(len(data)):
        objects = [fiftyone.Detection(**fields) for _, fields, _, _ in _objects(data, image, data.rle)]
        sample = fiftyone.Sample(filepath=str(data.image_path(image).resolve()), tags=_tags(data, image))
        sample[FIELD] = fiftyone.Detections(detections=objects)
        samples.append(sample)
    dataset = fiftyone.Dataset(name)
    dataset.default_classes = [category.name for category in data.categories]
    dataset.add_samples(samples)
    return dataset


def _sample(export: Export, image: int) -> dict[str, Any]:
    data, name = export.data, export.names[image]
    width, height = data.image_size(image)
    detections = []
    for i, fields, box, area in _objects(data, image, lambda i, _: export.rle(i, image)):
        export.add(image, i, box, area)
        known = get_dict(decode_extras(data.extras[i]), "fiftyone").get("id")
        mask = fields.pop("mask", None)
        if mask is not None:
            fields["mask"] = {"$binary": {"base64": base64.b64encode(_pack(mask)).decode(), "subType": "00"}}
        kind = {"_id": {"$oid": _object_id(known, data.paths[image], i)}, "_cls": "Detection"}
        detections.append(kind | {"attributes": {}, "tags": []} | fields)
    known = get_dict(decode_extras(data.image_extras[image]), "fiftyone").get("id")
    return {
        "_id": {"$oid": _object_id(known, data.paths[image], -1)},
        "filepath": f"data/{name}",
        "tags": _tags(data, image),
        "_media_type": "image",
        "_rand": image / max(len(data), 1),
        "metadata": {"_cls": "ImageMetadata", "width": width, "height": height},
        FIELD: {"_cls": "Detections", "detections": detections},
    }


def _objects(
    data: Annotations, image: int, load_rle: Any
) -> Iterator[tuple[int, dict[str, Any], list[float] | None, int | None]]:
    """Yield the index of each object, the fields of its detection, and the box and mask area that it is read with."""
    width, height = data.image_size(image)
    if not width or not height:
        return
    size = np.array([width, height, width, height])
    for i in data.instances_in(image).tolist():
        rle = load_rle(i, (height, width)) if data.trusted[i] else None
        mask, x, y = (np.zeros((0, 0)), 0, 0) if rle is None else decode_in_box(rle)
        box, area = data.boxes[i], None
        if mask.size:
            box = np.array([x, y, x + mask.shape[1], y + mask.shape[0]]) + _NUDGE
            area = int(mask.sum())
        if not np.isfinite(box).all():
            continue
        left, top, right, bottom = (box / size).tolist()
        fields: dict[str, Any] = {
            "label": data.categories[data.labels[i]].name,
            "bounding_box": [left, top, right - left, bottom - top],
        }
        if mask.size:
            fields["mask"] = mask.astype(bool)
        yield i, fields | _attributes(data, i), box.tolist() if mask.size else None, area


def _attributes(data: Annotations, i: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {"annotation_id": data.ids[i]}
    if data.iscrowd[i]:
        attributes["iscrowd"] = 1
    if np.isfinite(data.quality[i]):
        attributes["quality"] = round(float(data.quality[i]), 6)
    if data.source[i] is not None:
        attributes["source"] = data.source[i]
    held = hold_object(decode_extras(data.extras[i]))
    index = {key: v for key, v in held["fiftyone"].items() if key == "index"}
    tags = {"tags": held["tags"]} if "tags" in held else {}
    return get_dict(held, "attributes") | index | attributes | tags


def hold_object(extras: dict[str, Any], source: str | None = None) -> dict[str, Any]:
    """Return what a file holds of the extras of an object."""
    attributes = {k: v for k, v in get_dict(extras, "attributes").items() if _is_attribute(k, v)}
    index = get_dict(extras, "fiftyone").get("index")
    own = {"id": ANY} | ({"index": index} if isinstance(index, int) else {})
    return ({"attributes": attributes} if attributes else {}) | {"fiftyone": own} | _hold_tags(extras)


def hold_image(extras: dict[str, Any], source: str | None = None) -> dict[str, Any]:
    """Return what a file holds of the extras of an image."""
    return {"fiftyone": {"id": ANY}} | _hold_tags(extras)


def _hold_tags(extras: dict[str, Any]) -> dict[str, list[str]]:
    tags = [tag for tag in get_list(extras, "tags") if isinstance(tag, str)]
    return {"tags": tags} if tags else {}


def _is_attribute(name: str, value: Any) -> bool:
    is_plain = isinstance(value, str | int | float) and _NAME.match(name) is not None
    return is_plain and name not in KNOWN and name not in ("id", "attributes")


def _tags(data: Annotations, image: int) -> list[str]:
    split = data.splits[image]
    others = _hold_tags(decode_extras(data.image_extras[image])).get("tags", [])
    return [*([] if split is None else [split]), *others]


def _object_id(known: Any, path: str, row: int) -> str:
    """Return the id that an object had in FiftyOne, or one of the same form."""
    if isinstance(known, str) and re.fullmatch("[0-9a-f]{24}", known):
        return known
    return blake2b(f"{row}:{path}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _pack(mask: NDArray[np.bool_]) -> bytes:
    with io.BytesIO() as file:
        np.save(file, mask, allow_pickle=False)
        return zlib.compress(file.getvalue())


def _metadata(data: Annotations) -> dict[str, Any]:
    """Return the description of a dataset, of which FiftyOne adds the rest."""
    fields = [
        _field("id", "ObjectIdField", db_field="_id"),
        _field("filepath", "StringField"),
        _field("tags", "ListField", subfield="fiftyone.core.fields.StringField"),
        _field("metadata", "EmbeddedDocumentField", embedded_doc_type="fiftyone.core.metadata.ImageMetadata"),
        _field("_media_type", "StringField"),
        _field("_rand", "FloatField"),
        _field("_dataset_id", "ObjectIdField"),
        _field("created_at", "DateTimeField", read_only=True),
        _field("last_modified_at", "DateTimeField", read_only=True),
        _field(FIELD, "EmbeddedDocumentField", embedded_doc_type="fiftyone.core.labels.Detections"),
    ]
    classes = [category.name for category in data.categories]
    described = {"version": _VERSION, "media_type": "image", "info": {}, "app_config": {}}
    return described | {"sample_fields": fields, "default_classes": classes}


def _field(name: str, type: str, db_field: str | None = None, **more: Any) -> dict[str, Any]:
    described = {"name": name, "ftype": f"fiftyone.core.fields.{type}", "db_field": db_field or name}
    return described | {"fields": []} | more

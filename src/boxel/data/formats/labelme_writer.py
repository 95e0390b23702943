"""Write LabelMe."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import count, filterfalse
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.formats.extras import decode_extras
from boxel.data.formats.geometry import enclose
from boxel.data.formats.layout import Export
from boxel.masks.rle import polygon_area

VERSION = "5.0.0"

OPTIONS = ("simplify",)
"""What `boxel.write` passes on."""

CORNERED = ("rotation", "quadrilateral")
"""X-AnyLabeling's shapes of four corners."""

SHAPE_FIELDS = frozenset(("label", "points", "shape_type", "group_id", "mask"))

SHAPE_DEFAULTS: dict[str, Any] = {"flags": {}, "description": ""}
"""Values that LabelMe gives every shape."""

OWN_FIELDS = frozenset(("id", "written", "quality", "source", "trusted", "iscrowd", "area", "bbox", "own"))
"""Keys that boxel adds; ``own`` has the fields whose places in a shape are taken, e.g. another ``label``."""


def write(data: Annotations, path: Path, simplify: float | None = None) -> list[str]:
    """Write one JSON file per image, with the images linked beside them.

    The parts of a mask become polygons of one group. Each shape holds its id and what COCO would hold, in keys that
    LabelMe keeps: ``quality``, ``source``, ``trusted``, ``iscrowd``, ``area``, and ``bbox`` if the box is not the
    extent of the shape; by ``written`` it is known whether the shape has been edited. For ``simplify`` see
    `trace_outline`.
    """
    export = Export(data, path, "LabelMe", tolerance=simplify, untrusted=True)
    for image, (stem, name) in enumerate(zip(export.stems, export.names, strict=True)):
        width, height = data.image_size(image)
        extras = decode_extras(data.image_extras[image])
        content: dict[str, Any] = {
            "version": extras.get("version", VERSION),
            "flags": extras.get("flags", {}),
            "shapes": _shapes(export, image),
            "imagePath": name,
            "imageData": None,
            "imageHeight": height,
            "imageWidth": width,
        }
        if data.image_ids[image] != stem:
            content["id"] = data.image_ids[image]
        if data.splits[image] is not None:
            content["split"] = data.splits[image]
        text = msgspec.json.format(msgspec.json.encode(extras | content), indent=2)
        (path / f"{stem}.json").write_bytes(text)
    export.write_ids()
    return export.losses("holds outlines", needs="LabelMe shapes need finite numbers")


def _shapes(export: Export, image: int) -> list[dict[str, Any]]:
    """Return the shapes of an image."""
    data = export.data
    shapes: list[dict[str, Any]] = []
    own = data.instances_in(image).tolist()
    extras = {instance: decode_extras(data.extras[instance]) for instance in own}
    groups = {i: group for i in own if type(group := extras[i].get("group_id")) in (int, str)}
    used = {*groups.values()}
    free = filterfalse(used.__contains__, count(1))
    lone: set[Any] = set()  # groups of one shape, with its label
    for instance in own:
        label = data.categories[data.labels[instance]].name
        rings, kind = export.rings(instance, image), "polygon"
        if not rings:
            rings, kind = [data.boxes[instance].tolist()], "rectangle"
        if not np.isfinite(rings[0]).all():
            continue
        points = [np.reshape(ring, (-1, 2)).tolist() for ring in rings]
        group = groups.get(instance)
        if len(rings) > 1:  # its parts need a group of their own
            group = next(free)
        elif (group, label) in lone:
            group = None
        lone.add((group, label))
        extent = enclose([point for ring in points for point in ring])
        known = extras[instance].get("shape_type")
        if len(points) == 1 and len(points[0]) == 4 and isinstance(known, str) and known in CORNERED:
            kind = known
        shape = {"group_id": group, "shape_type": kind}
        placed = {key: v for key, v in extras[instance].items() if _has_place(key, v, shape)}
        others = {key: v for key, v in extras[instance].items() if key not in placed}
        own = _own_fields(data, instance, points, extent) | ({"own": others} if others else {})
        shapes += [{"label": label, "points": ring} | shape | {"flags": {}} | placed | own for ring in points]
        area = sum(polygon_area(np.array(ring)) for ring in points) if kind != "rectangle" else None
        export.add(image, instance, extent, mask_area=area)
    return shapes


def _has_place(key: str, value: Any, shape: Mapping[str, Any]) -> bool:
    """Return whether a field of an object is read as it is from its place in a shape."""
    if key in shape or key in SHAPE_DEFAULTS:
        return value is not None and value != SHAPE_DEFAULTS.get(key) and value == shape.get(key, value)
    return key not in SHAPE_FIELDS | OWN_FIELDS


def _own_fields(
    data: Annotations, i: int, points: Sequence[Sequence[Sequence[float]]], extent: Sequence[float]
) -> dict[str, Any]:
    """Return what a shape holds beside its points."""
    box = data.boxes[i]
    x0, y0, x1, y1 = box.tolist()
    fields = {
        "quality": None if np.isnan(data.quality[i]) else round(float(data.quality[i]), 6),
        "source": data.source[i],
        "trusted": None if data.trusted[i] else False,
        "iscrowd": 1 if data.iscrowd[i] else None,
        "area": None if np.isnan(data.areas[i]) else float(data.areas[i]),
        "bbox": [x0, y0, round(x1 - x0, 9), round(y1 - y0, 9)] if np.abs(box - extent).max() > 1e-6 else None,
    }
    held = {key: value for key, value in fields.items() if value is not None}
    return {"id": data.ids[i], "written": compute_digest(points)} | held


def compute_digest(rings: Iterable[Sequence[Sequence[float]]]) -> str:
    """Return what shows whether the points of an instance have been edited."""
    numbers = sorted([round(100 * v) for point in points for v in point] for points in rings)
    return f"{zlib.crc32(repr(numbers).encode()):08x}"

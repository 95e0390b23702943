"""Write Label Studio: tasks with predictions, and the labeling configuration of their project."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.formats.brush import encode_brush_in_box
from boxel.data.formats.extras import decode_extras, get_dict
from boxel.data.formats.label_studio_config import CONFIG_FILE, CONTROLS, write_config
from boxel.data.formats.layout import Export
from boxel.data.formats.rotated import CORNERS
from boxel.data.formats.shapes import Shape, add_shape

FILE = "tasks.json"
OPTIONS = ("polygons", "simplify")

KNOWN = frozenset(
    {
        *("id", "type", "value", "from_name", "to_name", "origin", "score"),
        *("original_width", "original_height", "image_rotation"),
    }
)
"""Fields of a region that have a place of their own; others stay under ``label_studio``."""

LOCAL = "/data/local-files/?d="
UNNAMED = "boxel"
"""The model version of predictions whose masks have no source."""


def write(data: Annotations, path: Path, polygons: bool = False, simplify: float | None = None) -> list[str]:
    """Write tasks whose predictions annotators can correct, with the images beside them in ``images/``.

    A polygon of one ring stays one, any other mask becomes a brush mask, and the rest are boxes; quality becomes the
    score, and the id the name of the region. ``label_config.xml`` is the labeling configuration for the project. An
    image that came from Label Studio keeps the address that it had there, any other gets one for local files below the
    new folder. `IDS_FILE` holds what the tasks have no place for. With ``polygons`` all masks are polygons, with their
    parts and holes in keyhole form; with ``simplify`` these differ by that many pixels at most.
    """
    export = Export(data, path, "Label Studio", "images", tolerance=simplify)
    as_polygons = polygons or simplify is not None
    used: set[str] = {"rectangle"}
    with open(path / FILE, "wb") as file:
        file.write(b"[\n")
        for image in range(len(data)):
            task = _task(export, image, as_polygons, used)
            file.write((b",\n" if image else b"") + msgspec.json.encode(task))
        file.write(b"\n]\n")
    (path / CONFIG_FILE).write_text(write_config(data, used), encoding="utf-8")
    export.write_ids()
    needs = "Label Studio needs finite numbers and the sizes of the images"
    return export.losses(
        "holds one ring per polygon",
        needs,
        others=export.describe_tight_boxes(),
        held=[CORNERS, "label_studio", "image data"],
    )


def _task(export: Export, image: int, as_polygons: bool, used: set[str]) -> dict[str, Any]:
    data, name = export.data, export.names[image]
    own = data.instances_in(image)
    results = [_result(export, i, image, as_polygons, used) for i in own.tolist()]
    sources = Counter(data.source[i] for i in own.tolist() if data.source[i] is not None)
    version = max(sources, key=sources.__getitem__) if sources else UNNAMED
    prediction: dict[str, Any] = {"model_version": version}
    scores = data.quality[own][np.isfinite(data.quality[own])]
    if len(scores):
        prediction["score"] = round(float(scores.mean()), 6)
    address = {"image": f"{LOCAL}{quote(f'images/{name}')}"}
    fields = address | get_dict(decode_extras(data.image_extras[image]), "data") | {"file_name": name}
    if data.splits[image] is not None:
        fields["split"] = data.splits[image]
    id = data.image_ids[image]
    task = {"id": id} if isinstance(id, int) else {}
    return task | {"data": fields, "predictions": [prediction | {"result": list(filter(None, results))}]}


def _result(
    export: Export, instance: int, image: int, as_polygons: bool, used: set[str]
) -> dict[str, Any] | None:
    """Return the region of an instance; None if it has no place in its image."""
    data = export.data
    size = data.image_size(image)
    if not all(size):
        return None
    shape = add_shape(export, instance, image, as_polygons)
    if shape is None:
        return None
    extras = decode_extras(data.extras[instance])
    kind, value = _value(shape, size, extras)
    used.add(kind)
    tag, control = CONTROLS[kind]
    result: dict[str, Any] = {
        "id": str(data.ids[instance]),
        "type": tag.lower(),
        "from_name": control,
        "to_name": "image",
        "original_width": size[0],
        "original_height": size[1],
        "image_rotation": 0,
        "value": value | {tag.lower(): [data.categories[data.labels[instance]].name]},
    }
    if np.isfinite(data.quality[instance]):
        result["score"] = round(float(data.quality[instance]), 6)
    return result | region_fields(extras)


def region_fields(extras: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a region that stand for extras, e.g. ``meta``, a text about it that annotators see."""
    return {key: v for key, v in get_dict(extras, "label_studio").items() if key not in KNOWN}


def _value(shape: Shape, size: tuple[int, int], extras: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return what a shape is drawn as, and its numbers in percent."""
    if len(shape.points):
        return "polygon", {"points": (shape.points / size * 100).tolist(), "closed": True}
    if shape.mask.size:
        return "brush", {"format": "rle", "rle": encode_brush_in_box(shape.mask, *shape.corner, *size[::-1])}
    corner, extent, degrees = shape.box[:2], shape.box[2:] - shape.box[:2], 0.0
    if shape.rotated is not None:
        corner, extent, degrees = np.array(extras[CORNERS][0]), np.array(shape.rotated[1:3]), shape.rotated[3]
    left, top, width, height = (np.concatenate([corner / size, extent / size]) * 100).tolist()
    return "rectangle", {"x": left, "y": top, "width": width, "height": height, "rotation": degrees}

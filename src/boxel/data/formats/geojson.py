"""Write GeoJSON (RFC 7946): the masks of GeoTIFFs as polygons on the earth; nothing reads it back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from boxel.data.annotations import Annotations
from boxel.data.georeference import mask_features
from boxel.masks.rle import encode_in_box
from boxel.utils.files import write_text

SUFFIX = ".geojson"


def write(data: Annotations, path: Path) -> list[str]:
    """Write a feature per instance, of its box if it has no mask, with `id`, `category` and `image`, and `quality`."""
    features: list[Mapping[str, Any]] = []
    for image in range(len(data)):
        width, height = data.image_size(image)
        rles, properties = [], []
        for row in data.instances_in(image).tolist():
            corners = data.boxes[row].round().clip(0, [width, height] * 2)
            left, top, right, bottom = corners.astype(int).tolist()
            box = np.ones((max(bottom - top, 0), max(right - left, 0)), dtype=bool)
            mask = data.rle(row, (height, width)) if data.has_mask[row] else None
            rles.append(mask or encode_in_box(box, left, top, height, width))
            values = {"id": data.ids[row], "category": data.categories[data.labels[row]].name}
            known = {} if np.isnan(data.quality[row]) else {"quality": round(float(data.quality[row]), 3)}
            properties.append(values | {"image": data.paths[image]} | known)
        if rles:
            features += mask_features(data.image_path(image), rles, properties)
    write_features(features, path)
    return []


def write_features(features: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write a collection of features, one per line."""
    lines = ",\n".join(json.dumps(feature, ensure_ascii=False) for feature in features)
    write_text(path, f'{{"type": "FeatureCollection", "features": [\n{lines}\n]}}\n')

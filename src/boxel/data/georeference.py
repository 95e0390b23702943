"""Where the pixels of a GeoTIFF lie on the earth; needs rasterio (the extra `geo`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxel.data.windows import import_rasterio, is_tiff_file, raster_errors
from boxel.masks.rle import Rle, decode_in_box
from boxel.utils.errors import BoxelError, missing_extra
from boxel.utils.files import atomic_path

WGS84 = "EPSG:4326"
"""The coordinates of GeoJSON (RFC 7946, Section 4): degrees of longitude and latitude."""

_DIGITS = 8  # of a degree: a millimeter


def read_georeference(path: str | os.PathLike[str]) -> tuple[Any, Any] | None:
    """Return the coordinate system of a GeoTIFF and its transform from pixels; None if unknown.

    Without rasterio none is known.
    """
    rasterio = import_rasterio()
    if rasterio is None or not is_tiff_file(path):
        return None
    try:
        with rasterio.open(path, driver="GTiff") as raster:
            return None if raster.crs is None else (raster.crs, raster.transform)
    except raster_errors():
        return None


def require_georeference(path: str | os.PathLike[str]) -> tuple[Any, Any]:
    """Return what :func:`read_georeference` does, or raise a `BoxelError`."""
    if import_rasterio() is None:
        raise missing_extra("GeoJSON", ImportError(name="rasterio"))
    found = read_georeference(path)
    if found is None:
        raise BoxelError(
            f"{path}: the image has no coordinate system, which GeoJSON needs; give a GeoTIFF, or write a .json file."
        )
    return found


def write_like(values: NDArray[np.integer], path: Path, source: str | os.PathLike[str]) -> None:
    """Write (H, W) values as a GeoTIFF with the coordinate system and the transform of another one."""
    crs, transform = require_georeference(source)
    import rasterio

    height, width = values.shape
    layout = {"driver": "GTiff", "compress": "deflate", "count": 1, "height": height, "width": width}
    with (
        atomic_path(path) as file,
        rasterio.open(file, "w", **layout, dtype=values.dtype, crs=crs, transform=transform) as raster,
    ):
        raster.write(values, 1)


def mask_features(
    path: str | os.PathLike[str], rles: Iterable[Rle], properties: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return GeoJSON features of masks: polygons along the edges of their pixels, in longitude and latitude.

    Args:
        path: The image, a GeoTIFF.
        rles: N masks of its size; an empty one gets no feature.
        properties: N dicts of JSON values.

    Raises:
        BoxelError: The image has no coordinate system, or rasterio is not installed.
    """
    crs, transform = require_georeference(path)
    from rasterio.features import shapes
    from rasterio.warp import transform_geom
    from rasterio.windows import Window
    from rasterio.windows import transform as window_transform

    geometries, kept = [], []
    for rle, values in zip(rles, properties, strict=True):
        mask, x, y = decode_in_box(rle)
        place = window_transform(Window(x, y, *mask.shape[::-1]), transform)
        parts = [part["coordinates"] for part, _ in shapes(mask, mask=mask > 0, transform=place)]
        if parts:
            geometries.append({"type": "MultiPolygon", "coordinates": parts})
            kept.append(values)
    places = transform_geom(crs, WGS84, geometries, precision=_DIGITS) if geometries else []
    return [
        {"type": "Feature", "properties": values, "geometry": _as_rfc7946(geometry)}
        for values, geometry in zip(kept, places, strict=True)
    ]


def _as_rfc7946(geometry: dict[str, Any]) -> dict[str, Any]:
    """Let outer rings run counterclockwise and holes clockwise, and make one part a polygon."""
    parts = [
        [_turned(ring, clockwise=hole > 0) for hole, ring in enumerate(part)]
        for part in geometry["coordinates"]
    ]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _turned(ring: Sequence[Sequence[float]], clockwise: bool) -> list[list[float]]:
    doubled = sum((x1 - x0) * (y1 + y0) for (x0, y0), (x1, y1) in pairwise(ring))  # above 0 if clockwise
    points = [list(point) for point in ring]
    return points if (doubled > 0) == clockwise else points[::-1]

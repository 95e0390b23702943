"""A handful of real photos with outlines drawn by hand for this project, at no download.

The photos are those that scikit-image and, where it is installed, scikit-learn carry in their wheels; only
the outlines, in ``photos.json``, are ours.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import msgspec
from PIL import Image

from boxel.data.annotations import Annotations, Category
from boxel.data.formats import write
from boxel.data.formats.builder import Builder


class _Object(msgspec.Struct):
    category: str
    polygons: list[list[float]]  # x, y, x, y, ... in pixels


def photos() -> Annotations:
    """The photos where they are installed, with boxes and masks.

    A person at a camera, an astronaut, a cat, a cup with its spoon, coins, a motorcycle, a rocket, and with
    scikit-learn a pagoda and flowers. Every box is the tight box of its outline.

    Returns:
        Up to 9 images, the paths absolute. A photo that the installed packages don't have is left out.
    """
    source = files("boxel.data") / "photos.json"
    outlines = msgspec.json.decode(source.read_bytes(), type=dict[str, list[_Object]])
    names = sorted({thing.category for things in outlines.values() for thing in things})
    rows = Builder()
    for resource, things in outlines.items():
        path = _installed(resource)
        if path is None:
            continue
        with Image.open(path) as photo:
            image = rows.add_image(len(rows.paths) + 1, str(path), *photo.size)
        for thing in things:
            xs = [x for polygon in thing.polygons for x in polygon[::2]]
            ys = [y for polygon in thing.polygons for y in polygon[1::2]]
            box = min(xs), min(ys), max(xs), max(ys)
            segmentation = msgspec.json.encode(thing.polygons)
            rows.add(len(rows.ids) + 1, image, names.index(thing.category), box, segmentation)
    categories = [Category(number, name) for number, name in enumerate(names, start=1)]
    return rows.build(Path(), categories, Path(str(source)))


def write_photos(folder: str | os.PathLike[str]) -> Annotations:
    """Write the photos as a data set: the images, ``boxes.json`` and ``masks.json`` (COCO).

    Args:
        folder: made if need be.

    Returns:
        The data set of ``masks.json``, its paths relative to the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = photos()
    for path in data.paths:
        shutil.copyfile(path, folder / Path(path).name)
    names = [Path(path).name for path in data.paths]
    data = replace(data, root=folder, paths=names, file=str(folder / "masks.json"))
    write(data, folder / "masks.json")
    write(data.without_masks(), folder / "boxes.json")
    return data


def _installed(resource: str) -> Path | None:
    """The file of an installed package, without importing it; None if there is none."""
    package, _, name = resource.partition("/")
    spec = importlib.util.find_spec(package)
    places = (spec and spec.submodule_search_locations) or ()
    return next((path for place in places if (path := Path(place, name)).is_file()), None)
